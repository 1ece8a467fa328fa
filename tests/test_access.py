"""Keys, scopes and namespaces: who may call what, and what an answer shows of it."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar

from indexd.access import ANYONE, OPEN, SCOPES, Access, Others, Scope
from indexd.api.auth import Route, routes, table
from indexd.app import create_app
from indexd.background import key_cache
from indexd.errors import ConfigurationError
from indexd.names import MAX_NAMESPACE, as_asked, namespace_of
from indexd.settings import Settings
from indexd.store import keys
from tests.conftest import Client, document

APP = create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))
ROUTES = [route for route in routes(APP) if not route.path.startswith("/schema")]

BODIES: dict[str, Any] = {
    "/embed/text": {"text": "word", "source_ref": "x"},
    "/index/upsert": document("b", [1, 0]),
    "/index/delete": {"doc_id": "a"},
    "/index/search": {"embedding": [1, 0]},
    "/index/decay/preview": {},
    "/index/retention/preview": {"policy": {"max_age_seconds": 1}},
    "/index/feedback": {"doc_id": "a", "useful": True},
    "/index/related": {"doc_id": "a"},
    "/index/documents/get": {"doc_ids": ["a"]},
    "/index/documents/list": {},
    "/index/documents/count": {},
    "/index/documents/facets": {"fields": ["tags"]},
    "/index/documents/update": {"doc_ids": ["a"], "set": {"tags": ["t"]}},
    "/index/documents/delete": {"doc_ids": ["a"]},
}

PARAMETERS = {
    "/index/document": ("namespace", "doc_id"),
    "/index/lifecycle": ("namespace", "doc_id"),
    "/index/irrelevant": ("namespace",),
}
"""Query parameters about a document, of the routes that take some."""


def about(route: Route, namespace: str) -> dict[str, Any]:
    """What is sent to ask a route about the document `a` of a namespace."""
    if route.method == "GET":
        asked = {"namespace": namespace, "doc_id": "a"}
        return {"params": {name: asked[name] for name in PARAMETERS.get(route.path, ())}}
    if route.path == "/index/bulk":
        line = msgspec.json.encode(document("b", [1, 0], namespace=namespace))
        return {"content": line, "headers": {"Content-Type": "application/x-ndjson"}}
    if route.path == "/index/forget":
        wanted = {"namespace": namespace, "doc_id": "a"}
        return {"json": {"filter": wanted, "reason": "test", "dry_run": True}}
    return {"json": BODIES[route.path] | {"namespace": namespace}}


MakeKey = Callable[..., Any]


@pytest.fixture
async def make_key(url: str) -> AsyncIterator[MakeKey]:
    """Makes a key in the test's own database; answers the header that carries it."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        async def make(
            name: str, scope: Scope = "read", *namespaces: str, **rest: Any
        ) -> dict[str, str]:
            secret = keys.new_secret()
            new = keys.NewKey(secret, name, scope, list(namespaces) or None, **rest)
            assert await keys.create(connection, new, at=datetime.now(UTC))
            return {"Authorization": f"Bearer {secret}"}

        yield make


@pytest.fixture
def guarded(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, auth="keys")


@pytest.fixture
async def locked(guarded: Settings) -> AsyncIterator[Client]:
    async with Client(create_app(guarded)) as opened:
        yield opened


async def revoke(url: str, name: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        assert await keys.revoke(connection, name, at=datetime.now(UTC))


def test_every_route_says_its_scope() -> None:
    assert len(ROUTES) >= 10
    assert {route.scope for route in routes(APP)} <= {OPEN, *SCOPES}
    assert {route.others for route in routes(APP)} <= {*get_args(Others)}
    open_routes = {route.path for route in ROUTES if route.scope == OPEN}
    assert open_routes == {"/healthz", "/readyz"}


def test_the_table_of_routes_is_complete() -> None:
    page = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
    shown = page.partition("<!-- routes -->\n")[2].partition("<!-- end of routes -->")[0]
    assert shown.splitlines() == table(ROUTES)


async def test_a_route_is_called_by_its_scope_and_those_above(
    locked: Client, make_key: MakeKey
) -> None:
    headers = {scope: await make_key(scope, scope) for scope in SCOPES}
    for method, path, needed, _ in ROUTES:
        if needed == OPEN:
            assert (await locked.request(method, path)).status_code == 200, path
            continue
        assert (await locked.request(method, path)).status_code == 401, path
        for scope in SCOPES:
            answer = await locked.request(
                method, path, json=BODIES.get(path, {}), headers=headers[scope]
            )
            if SCOPES.index(scope) < SCOPES.index(needed):
                assert answer.status_code == 403, (path, scope)
                assert answer.json()["code"] == "scope_missing"
                assert needed in answer.json()["error"]
            else:
                assert answer.status_code not in (401, 403), (path, scope)
                assert answer.status_code < 500, (path, scope)


async def test_in_other_namespaces_a_key_meets_what_the_route_says(
    locked: Client, make_key: MakeKey
) -> None:
    admin, mine = await make_key("admin", "admin"), await make_key("mine", "admin", "mine")
    for namespace in ("mine", "docs"):
        sent = document("a", [1, 0], namespace=namespace, texts=["word"])
        assert (await locked.post("/index/upsert", json=sent, headers=admin)).status_code == 200

    async def answer(route: Route, namespace: str) -> tuple[int, str]:
        sent = about(route, namespace)
        headers = {**sent.pop("headers", {}), **mine}
        found = await locked.request(route.method, route.path, headers=headers, **sent)
        assert "docs" not in found.text or namespace == "docs", route
        return found.status_code, _without_times(found.text.replace(namespace, "?"))

    for route in ROUTES:
        # One that is there and hidden, and one that is not there.
        hidden, unknown = await answer(route, "docs"), await answer(route, "insights")
        assert "? '" not in hidden[1], route
        match route.others:
            case "403":
                assert hidden == unknown, route
                assert "namespace_forbidden" in hidden[1], route
                assert hidden[0] == (200 if route.path == "/index/bulk" else 403), route
            case "empty":
                assert hidden == unknown, route
                assert hidden[0] in (200, 404), route
            case "left out":
                assert hidden[0] == 200, route
            case others:
                assert others == "-"
    assert (await locked.get("/index/stats", headers=admin)).json()["namespaces"] == {
        "mine": 1,
        "docs": 1,
    }


async def test_a_route_without_a_scope_is_for_admins(make_key: MakeKey, guarded: Settings) -> None:
    from litestar import get

    @get("/new")
    async def new() -> str:
        return "new"

    app: Litestar = create_app(guarded)
    app.register(new)
    assert Route("GET", "/new", "none", "none") in routes(app)
    async with Client(app) as client:
        writer, admin = await make_key("w", "write"), await make_key("a", "admin")
        assert (await client.get("/new", headers=writer)).status_code == 403
        assert (await client.get("/new", headers=admin)).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        *("", "Bearer", "Bearer ", "Basic abc", "Bearer x", "Bearer ixd_00000000_" + "a" * 43),
        *("Bearer " + "x" * 10_000, "Bearer \x00", "Bearer ä"),
    ],
)
async def test_a_wrong_key_is_a_401_that_says_what_was_expected(
    locked: Client, header: str
) -> None:
    answer = await locked.get("/index/stats", headers={b"Authorization": header.encode()})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json() == {
        "error": "Expected a key of this service as `Authorization: Bearer <key>`.",
        "code": "unauthorized",
    }


async def test_the_start_of_a_key_is_not_enough(locked: Client, make_key: MakeKey) -> None:
    header = (await make_key("one"))["Authorization"]
    for wrong in (header[:-1], header + "x", header[:-1] + ("a" if header[-1] != "a" else "b")):
        answer = await locked.get("/index/stats", headers={"Authorization": wrong})
        assert answer.status_code == 401


async def test_a_revoked_key_is_refused_at_once_and_an_expired_one(
    guarded: Settings, url: str, make_key: MakeKey
) -> None:
    header = await make_key("one")
    ended = await make_key("ended", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    async with (
        Client(create_app(guarded)) as first,
        Client(create_app(guarded)) as second,
    ):
        for _ in range(3):
            assert (await first.get("/index/stats", headers=header)).status_code == 200
            assert (await second.get("/index/stats", headers=header)).status_code == 200
        assert (await first.get("/index/stats", headers=ended)).status_code == 401
        await revoke(url, "one")
        await asyncio.sleep(0.2)
        assert (await first.get("/index/stats", headers=header)).status_code == 401
        assert (await second.get("/index/stats", headers=header)).status_code == 401


async def test_memory_is_not_believed_once_it_is_old(
    guarded: Settings, make_key: MakeKey, clone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the session that follows the keys hangs."""
    monkeypatch.setattr(key_cache, "LOOK_SECONDS", 3600)
    header = await make_key("one")
    async with Client(create_app(guarded)) as client:
        assert (await client.get("/index/stats", headers=header)).status_code == 200
        await asyncio.sleep(0.3)
        clone.execute("UPDATE indexd.api_keys SET revoked_at = now()")
        clone.commit()
        assert (await client.get("/index/stats", headers=header)).status_code == 200
        await asyncio.sleep(key_cache.BELIEVED_SECONDS)
        assert (await client.get("/index/stats", headers=header)).status_code == 401


async def test_a_flood_of_wrong_keys_is_limited_and_keeps_no_valid_key_out(
    guarded: Settings, make_key: MakeKey
) -> None:
    few = msgspec.structs.replace(guarded, auth_failures_per_minute=5)
    header = await make_key("one")
    async with Client(create_app(few)) as client:
        assert (await client.get("/index/stats", headers=header)).status_code == 200
        await asyncio.sleep(0.5)
        statuses = []
        for guess in range(8):
            answer = await client.get(
                "/index/stats", headers={"Authorization": f"Bearer guess-{guess}"}
            )
            statuses.append(answer.status_code)
        assert statuses == [401] * 5 + [429] * 3
        assert int(answer.headers["retry-after"]) >= 1
        assert (await client.get("/index/stats", headers=header)).status_code == 200
        text = (await client.get("/metrics", headers=header)).text
        assert 'index_auth_failures_total{reason="unknown"} 5.0' in text
        assert 'index_auth_failures_total{reason="limited"} 3.0' in text


async def test_a_key_of_one_namespace_sees_and_touches_no_other(
    locked: Client, make_key: MakeKey, clone: Any
) -> None:
    admin = await make_key("admin", "admin")
    mine = await make_key("mine", "admin", "mine")
    for namespace in ("mine", "other"):
        sent = document("a", [1, 0], namespace=namespace, texts=["word"])
        assert (await locked.post("/index/upsert", json=sent, headers=admin)).status_code == 200

    found = await locked.post(
        "/index/search", json={"namespace": "other", "query": "word"}, headers=mine
    )
    assert found.json()["results"] == []
    found = await locked.post(
        "/index/search", json={"namespace": "mine", "query": "word"}, headers=mine
    )
    assert len(found.json()["results"]) == 1

    lines = "".join(
        msgspec.json.encode(document("b", [1, 0], namespace=namespace)).decode() + "\n"
        for namespace in ("mine", "other")
    )
    bulk = await locked.post(
        "/index/bulk", content=lines, headers={**mine, "Content-Type": "application/x-ndjson"}
    )
    assert (bulk.json()["accepted"], bulk.json()["failed"]) == (1, 1)
    assert bulk.json()["errors"][0]["code"] == "namespace_forbidden"

    await locked.post("/index/delete", json={"doc_id": "b", "namespace": "mine"}, headers=mine)
    await locked.post("/index/delete", json={"doc_id": "a", "namespace": "other"}, headers=admin)
    stats = (await locked.get("/index/stats", headers=mine)).json()
    assert stats["namespaces"] == {"mine": 1}
    assert (stats["total_documents"], stats["total_chunks"]) == (1, 1)
    previewed = await locked.post("/index/retention/preview", json={}, headers=mine)
    assert list(previewed.json()["namespaces"]) == ["mine"]
    events = (await locked.get("/index/audit", headers=mine)).json()["events"]
    assert [(event["namespace"], event["actor"]) for event in events] == [("mine", "mine")]
    for path in ("/index/stats", "/metrics", "/index/retention", "/index/audit"):
        assert "other" not in (await locked.get(path, headers=mine)).text, path
    metrics = (await locked.get("/metrics", headers=mine)).text
    assert 'index_items_total{namespace="mine"} 1.0' in metrics
    assert "index_queries_total" not in metrics
    assert 'reason="manual"' in metrics
    assert clone.execute("SELECT actor, namespace FROM indexd.forget_events").fetchall() == [
        ("mine", "mine"),
        ("admin", "other"),
    ]


async def test_a_key_of_one_namespace_learns_nothing_from_hashes_and_caps(
    guarded: Settings, make_key: MakeKey, tmp_path: Path
) -> None:
    mine = await make_key("mine", "admin", "mine")
    admin = await make_key("admin", "admin")
    seen = []
    for hidden in (1, 2):
        file = tmp_path / f"{hidden}.yaml"
        file.write_text(
            "namespaces: {mine: {half_life_seconds: 9}, "
            f"secret: {{half_life_seconds: {hidden}}}}}"
        )
        few = msgspec.structs.replace(guarded, policies=str(file), metrics_namespaces=1)
        async with Client(create_app(few)) as client:
            for namespace in ("mine", "other"):
                for number in range(2 if namespace == "other" else 1):
                    sent = document(f"d{number}", [1, 0], namespace=namespace)
                    await client.post("/index/upsert", json=sent, headers=admin)
            policies = (await client.get("/index/retention", headers=mine)).json()
            stats = (await client.get("/index/stats", headers=mine)).json()
            assert policies["policy_hash"] == stats["policy_hash"]
            seen.append(policies)
            text = (await client.get("/metrics", headers=mine)).text
            assert 'index_items_total{namespace="mine"} 1.0' in text
    assert seen[0] == seen[1]
    assert list(seen[0]["configs"]) == ["mine"]


async def test_a_key_of_one_namespace_forgets_in_no_other(
    locked: Client, make_key: MakeKey
) -> None:
    admin = await make_key("admin", "admin")
    mine = await make_key("mine", "admin", "mine")
    for namespace in ("mine", "other"):
        sent = document("a", [1, 0], namespace=namespace)
        await locked.post("/index/upsert", json=sent, headers=admin)

    async def forget(header: dict[str, str], **body: Any) -> Any:
        return await locked.post(
            "/index/forget", json={"reason": "test", "confirm": True, **body}, headers=header
        )

    for dry_run in (False, True):
        for where in ({}, {"namespace": "other"}, {"namespace": "never"}):
            answer = await forget(mine, filter={"doc_id": "a", **where}, dry_run=dry_run)
            assert (answer.status_code, answer.json()["code"]) == (403, "namespace_forbidden")
    for where in ({}, {"namespace": "other"}):
        plan = (await forget(admin, filter={"doc_id": "a", **where}, dry_run=True)).json()
        answer = await forget(mine, plan_id=plan["plan_id"])
        assert (answer.status_code, answer.json()["code"]) == (404, "plan_not_found")
    plan = (await forget(mine, filter={"doc_id": "a", "namespace": "mine"}, dry_run=True)).json()
    assert (await forget(mine, plan_id=plan["plan_id"])).json()["forgotten_count"] == 1
    stats = (await locked.get("/index/stats", headers=admin)).json()
    assert stats["namespaces"] == {"other": 1}


def _without_times(text: str) -> str:
    return re.sub(r'"(latency_ms|at)":("[^"]*"|[0-9.e-]+)', "", text)


async def test_the_rate_limit_is_per_key(guarded: Settings, make_key: MakeKey) -> None:
    slow = msgspec.structs.replace(guarded, rate_limit=3)
    one, two = await make_key("one"), await make_key("two")
    async with Client(create_app(slow)) as client:
        answers = [await client.get("/index/stats", headers=one) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[3].json()["code"] == "rate_limited"
        assert 1 <= int(answers[3].headers["retry-after"]) <= 20
        assert (await client.get("/index/stats", headers=two)).status_code == 200
        assert (await client.get("/healthz")).status_code == 200


async def test_metrics_can_be_public(guarded: Settings) -> None:
    public = msgspec.structs.replace(guarded, metrics_public=True)
    async with Client(create_app(public)) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/index/stats")).status_code == 401


async def test_without_authentication_keys_play_no_part(
    settings: Settings, make_key: MakeKey
) -> None:
    header = await make_key("one", "read", "mine")
    async with Client(create_app(settings)) as client:
        answer = await client.post("/index/upsert", json=document("a", [1, 0]), headers=header)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("address", "auth", "expected"),
    [
        *[(f"{host}:80", None, False) for host in ("127.0.0.1", "127.9.9.9", "[::1]", "localhost")],
        *[(f"{host}:80", None, True) for host in ("0.0.0.0", "[::]", "10.0.0.1", "host.lan")],  # noqa: S104 (not bound)
        ("127.0.0.1:80", "keys", True),
        ("0.0.0.0:80", "off", False),
    ],
)
def test_keys_are_wanted_wherever_others_can_come_in(
    address: str, auth: Any, expected: bool
) -> None:
    assert Settings(bind_addr=address, auth=auth).authenticates is expected


async def test_a_revoked_admin_key_of_a_file_stays_revoked(url: str) -> None:
    at = datetime.now(UTC)
    async with await psycopg.AsyncConnection.connect(url) as connection:
        first, second = "f" * 40, "s" * 40
        await keys.ensure_from_file(connection, first, at=at)
        await keys.ensure_from_file(connection, first, at=at)
        await keys.ensure_from_file(connection, second, at=at)
        assert [key.state(at) for key in await keys.every(connection)] == ["revoked", "valid"]
        with pytest.raises(ConfigurationError, match="was revoked"):
            await keys.ensure_from_file(connection, first, at=at)


@given(name=st.text(max_size=MAX_NAMESPACE))
def test_what_a_key_does_not_see_is_read_under_a_name_that_nobody_can_write_to(name: str) -> None:
    asked = namespace_of(name)
    limited = Access("agent", "read", frozenset())
    assert namespace_of(limited.reads(asked)) != limited.reads(asked)
    assert as_asked(limited.reads(asked)) == asked == as_asked(ANYONE.reads(asked))
