"""Documents that expire: hidden at once, removed by the namespace's next upsert."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from indexd import gauges
from indexd.app import create_app
from indexd.settings import Settings
from tests.conftest import Client, Sql, document, service_of

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PAST, SOON, LATER = "2026-05-31T00:00:00Z", "2026-06-01T00:01:00Z", "2026-07-01T00:00:00Z"


class Clock:
    """A time that the test moves."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def memory(settings: Settings, tmp_path: Path, clock: Clock) -> AsyncIterator[Client]:
    file = tmp_path / "policies.yaml"
    file.write_text(
        """
        namespaces:
          full: {max_items: 2, purge_strategy: oldest}
          fading: {max_items: 2, purge_strategy: lowest_score, half_life_seconds: 86400}
          aged: {max_age_seconds: 864000}
        """
    )
    changed = Settings(database_url=settings.database_url, policies=str(file), pool_size=4)
    async with Client(create_app(changed, now=clock)) as client:
        yield client


async def put(client: Client, doc_id: str, **rest: Any) -> dict[str, Any]:
    vector = rest.pop("vector", [1, 0])
    answer = await client.post("/index/upsert", json=document(doc_id, vector, **rest))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def ask(client: Client, route: str, **body: Any) -> dict[str, Any]:
    answer = await client.post(route, json={"namespace": "notes", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def listed(client: Client, namespace: str = "notes") -> list[str]:
    found = await ask(client, "/index/documents/list", namespace=namespace)
    return [one["doc_id"] for one in found["documents"]]


async def events(client: Client) -> list[tuple[str, int]]:
    found = (await client.get("/index/audit")).json()["events"]
    return [(one["kind"], one["forgotten_count"]) for one in reversed(found)]


async def test_an_expired_document_is_answered_nowhere(memory: Client, clock: Clock) -> None:
    await put(memory, "stays")
    await put(memory, "goes", ttl_seconds=60)
    assert await listed(memory) == ["goes", "stays"]
    params = {"namespace": "notes", "doc_id": "goes"}
    found = (await memory.get("/index/document", params=params)).json()
    assert found["expires_at"] == SOON
    await ask(memory, "/index/feedback", doc_id="goes", useful=False)

    clock.forward(60)
    assert await listed(memory) == ["stays"]
    got = await ask(memory, "/index/documents/get", doc_ids=["goes", "stays"])
    assert [one["doc_id"] for one in got["documents"]] == ["stays"]
    assert await ask(memory, "/index/documents/count") == {"documents": 1, "chunks": 1}
    assert (await memory.get("/index/document", params=params)).status_code == 404
    for route, more in (("/index/related", {}), ("/index/feedback", {"useful": True})):
        answer = await memory.post(route, json={**params, **more})
        assert answer.status_code == 404, route
    irrelevant = await memory.get("/index/irrelevant", params={"namespace": "notes"})
    assert irrelevant.json()["count"] == 0
    dry = await ask(memory, "/index/documents/delete", doc_ids=["goes"], dry_run=True)
    assert dry == {"deleted": 0, "missing": ["goes"]}


async def test_lifecycle_previews_and_stats_tell_of_expiry(memory: Client, clock: Clock) -> None:
    await put(memory, "goes", expires_at=SOON)
    await put(memory, "stays", expires_at=LATER)
    params = {"namespace": "notes", "doc_id": "goes"}
    for expired in (0, 1):
        found = (await memory.get("/index/lifecycle", params=params)).json()
        assert found["expires_at"] == SOON
        assert found["would_be_forgotten"] == {"reason": "ttl", "at": SOON}
        for at, gone in ((SOON, ["goes"]), (LATER, ["goes", "stays"])):
            preview = await ask(memory, "/index/retention/preview", at=at)
            one = preview["namespaces"]["notes"]
            assert [(c["doc_id"], c["reason"]) for c in one["would_forget"]] == [
                (doc_id, "ttl") for doc_id in gone
            ]
            assert (one["documents"], one["count"]) == (2, len(gone))
        fading = (await ask(memory, "/index/decay/preview"))["previews"]
        assert [(one["doc_id"], one["expires_at"]) for one in fading] == [
            ("goes", SOON),
            ("stays", LATER),
        ]
        stats = (await memory.get("/index/stats")).json()
        assert stats["total_documents"] == 2
        assert stats["details"]["notes"]["documents"] == 2
        assert stats["details"]["notes"]["expired"] == expired
        clock.forward(60)


async def test_the_next_upsert_removes_what_expired(
    memory: Client, clock: Clock, own_sql: Sql
) -> None:
    for doc_id in ("a", "b"):
        await put(memory, doc_id, ttl_seconds=60)
    await put(memory, "c")
    await put(memory, "elsewhere", namespace="other", ttl_seconds=60)
    clock.forward(60)
    assert (await put(memory, "c"))["forgotten"]["ttl"] == 2
    assert own_sql("SELECT doc_id FROM indexd.documents ORDER BY doc_id") == [
        ("c",),
        ("elsewhere",),
    ]
    assert own_sql("SELECT documents, chunks FROM indexd.namespaces WHERE namespace = 'notes'") == [
        (1, 1)
    ]
    assert await events(memory) == [("ttl", 2)]
    metrics = (await memory.get("/metrics")).text
    assert 'index_items_forgotten_total{namespace="notes",reason="ttl"} 2.0' in metrics


async def test_a_time_in_the_past_hides_at_once_and_the_next_upsert_removes_it(
    memory: Client,
) -> None:
    told = await put(memory, "past", expires_at=PAST)
    assert told["forgotten"]["ttl"] == 0
    assert await listed(memory) == []
    assert (await put(memory, "next"))["forgotten"]["ttl"] == 1


async def test_for_every_write_an_expired_document_is_not_there(
    memory: Client, clock: Clock
) -> None:
    conditions: list[dict[str, Any]] = [
        {},
        {"on_conflict": "skip"},
        {"on_conflict": "fail"},
        {"if_version": 0},
    ]
    for count, more in enumerate(conditions, start=1):
        told = await put(memory, "d", ttl_seconds=60, **more)
        assert (told["version"], told["unchanged"], told["status"]) == (count, False, "accepted")
        assert told["forgotten"]["ttl"] == (count > 1)
        clock.forward(60)
    refused = await memory.post("/index/upsert", json=document("d", [1, 0], if_version=4))
    assert refused.status_code == 409
    assert refused.json()["details"] == {"version": 0}
    assert await events(memory) == [("ttl", 1)] * 3  # the refused write removed nothing


async def test_an_expired_document_gives_its_dimension_free(memory: Client, clock: Clock) -> None:
    await put(memory, "d", ttl_seconds=60)
    three = document("d", [1, 0, 0])
    assert (await memory.post("/index/upsert", json=three)).status_code == 400
    clock.forward(60)
    conflict = await memory.post("/index/upsert", json={**three, "if_version": 1})
    assert conflict.status_code == 409
    assert await events(memory) == []
    told = await put(memory, "d", vector=[1, 0, 0])
    assert (told["version"], told["forgotten"]["ttl"]) == (2, 1)
    assert await listed(memory) == ["d"]


async def test_another_expiry_alone_changes_the_version_and_nothing_else(
    memory: Client, clock: Clock, own_sql: Sql
) -> None:
    await put(memory, "d", ttl_seconds=60)
    rows = "SELECT xmin::text, ctid::text FROM indexd.chunks"
    before = own_sql(rows)
    clock.forward(30)
    versions = []
    for more in (
        {"ttl_seconds": 60},
        {"expires_at": LATER},
        {"expires_at": LATER},
        {"expires_at": "2026-07-01T02:00:00+02:00"},
        {},
        {},
    ):
        told = await put(memory, "d", **more)
        versions.append((told["version"], told["unchanged"]))
    assert versions == [(2, True), (3, True), (3, True), (3, True), (4, True), (4, True)]
    assert own_sql(rows) == before
    params = {"namespace": "notes", "doc_id": "d"}
    found = (await memory.get("/index/document", params=params)).json()
    assert found["ingested_at"] == "2026-06-01T00:00:00Z"
    assert found["expires_at"] is None


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"expires_at": LATER, "ttl_seconds": 1}, "ttl_seconds"),
        ({"ttl_seconds": 0}, "ttl_seconds"),
        ({"ttl_seconds": -1}, "ttl_seconds"),
        ({"ttl_seconds": 1e12}, "ttl_seconds"),
        ({"ttl_seconds": "1"}, "ttl_seconds"),
        ({"expires_at": "2026-06-01"}, "expires_at"),
        ({"expires_at": "2026-06-01T00:00:00"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-01:00"}, "expires_at"),
    ],
)
async def test_an_expiry_that_is_none_is_refused(
    memory: Client, more: dict[str, Any], names: str
) -> None:
    body = document("d", [1, 0], **more)
    answer = await memory.post("/index/upsert", json=body)
    assert answer.status_code == 400
    assert names in answer.json()["error"]
    raw = json.dumps(document("d", [1, 0])).replace("{", '{"ttl_seconds": 1e999, ', 1)
    answer = await memory.post(
        "/index/upsert", content=raw, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400


@pytest.mark.parametrize("namespace", ["full", "fading"])
async def test_what_expired_takes_nobodys_place(
    memory: Client, clock: Clock, namespace: str
) -> None:
    for doc_id in ("old", "new"):
        await put(memory, doc_id, namespace=namespace)
        clock.forward(1)
    hidden = await put(memory, "hidden", namespace=namespace, expires_at=PAST)
    assert hidden["forgotten"] == {"ttl": 0, "retention": 0}
    params = {"namespace": namespace, "doc_id": "old"}
    found = (await memory.get("/index/lifecycle", params=params)).json()
    assert (found["purge_rank"], found["would_be_forgotten"]) == (1, None)
    params["doc_id"] = "hidden"
    found = (await memory.get("/index/lifecycle", params=params)).json()
    assert (found["purge_rank"], found["would_be_forgotten"]["reason"]) == (None, "ttl")
    preview = await ask(memory, "/index/retention/preview", namespace=namespace)
    condemned = preview["namespaces"][namespace]["would_forget"]
    assert [one["doc_id"] for one in condemned] == ["hidden"]
    told = await put(memory, "next", namespace=namespace)
    assert told["forgotten"] == {"ttl": 1, "retention": 1}
    assert await listed(memory, namespace) == ["new", "next"]


async def test_age_and_expiry_count_each_document_once(memory: Client, clock: Clock) -> None:
    old = (NOW - timedelta(days=11)).isoformat()
    await put(memory, "both", namespace="aged", ingested_at=old, ttl_seconds=60)
    clock.forward(60)
    preview = await ask(memory, "/index/retention/preview", namespace="aged")
    assert preview["namespaces"]["aged"]["count"] == 1
    assert (await put(memory, "new", namespace="aged"))["forgotten"]["ttl"] == 1


async def test_a_bulk_writes_as_if_line_by_line(memory: Client, clock: Clock) -> None:
    for doc_id in ("a", "b"):
        await put(memory, doc_id, ttl_seconds=60)
    clock.forward(60)
    lines = [
        document("a", [1, 0], on_conflict="fail"),
        document("c", [1, 0], expires_at=PAST),
        document("d", [1, 0], ttl_seconds=60),
        document("e", [1, 0], ttl_seconds=60, expires_at=LATER),
    ]
    answer = await memory.post(
        "/index/bulk",
        content="\n".join(json.dumps(line) for line in lines),
        headers={"Content-Type": "application/x-ndjson"},
    )
    told = answer.json()
    assert (told["accepted"], told["failed"], told["errors"][0]["line"]) == (3, 1, 4)
    assert told["forgotten"]["ttl"] == 3
    assert await listed(memory) == ["a", "d"]


async def test_a_delete_removes_what_expired_as_what_it_is(memory: Client, clock: Clock) -> None:
    await put(memory, "goes", ttl_seconds=60)
    await put(memory, "stays")
    clock.forward(60)
    told = await ask(memory, "/index/documents/delete", doc_ids=["goes", "stays"])
    assert told == {"deleted": 1, "missing": ["goes"]}
    assert sorted(await events(memory)) == [("delete", 1), ("ttl", 1)]
    stats = (await memory.get("/index/stats")).json()
    assert stats["total_documents"] == 0


async def test_a_forget_takes_what_expired_too(memory: Client, clock: Clock) -> None:
    await put(memory, "goes", ttl_seconds=60)
    clock.forward(60)
    answer = await memory.post(
        "/index/forget",
        json={"filter": {"namespace": "notes", "doc_id": "goes"}, "reason": "r", "confirm": True},
    )
    assert answer.json()["forgotten_count"] == 1
    assert await events(memory) == [("manual", 1)]


async def test_a_gauge_counts_what_is_hidden_and_not_removed_yet(
    settings: Settings, clock: Clock
) -> None:
    app = create_app(settings, now=clock)
    async with Client(app) as client:
        for doc_id in ("a", "b"):
            await put(client, doc_id, ttl_seconds=60)
        for seconds, expected in ((0, 0), (60, 2)):
            clock.forward(seconds)
            await gauges.sample_database(service_of(app))
            text = (await client.get("/metrics")).text
            assert f'index_items_expired{{namespace="notes"}} {expected}.0' in text
            assert f'index_items_due{{namespace="notes",reason="expired"}} {expected}.0' in text
        await put(client, "a")
        await gauges.sample_database(service_of(app))
        assert 'index_items_expired{namespace="notes"} 0.0' in (await client.get("/metrics")).text
