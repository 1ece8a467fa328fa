"""Forget on request: its guards, its dry run, its plans, and the log it leaves."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest

from indexd.app import create_app
from indexd.db.sessions import maintenance
from indexd.settings import Settings
from indexd.store.forgetting import plans
from tests.conftest import Client, Sql, document

ALL = {"namespace": "notes", "allow_namespace_wipe": True}


async def forget(client: Client, condition: dict[str, Any] | None = None, **rest: Any) -> Any:
    body = {"reason": "test", "confirm": True, **rest}
    if condition is not None:
        body["filter"] = condition
    return await client.post("/index/forget", json=body)


async def fill(client: Client) -> None:
    """a and b from the chronicle, c from nowhere, d in another namespace."""
    origin = {"origin": "osctx", "id": "log-1"}
    for body in (
        document("a", [1, 0], metas=[{"tags": ["x/y"]}], source_ref=origin, ingested_at=day(1)),
        document(
            "b", [1, 0], [0, 1], metas=[{}, {"tags": ["x"]}], source_ref=origin, ingested_at=day(2)
        ),
        document(
            "c", [1, 0], texts=["a secret word"], meta={"tags": ["whole/c"]}, ingested_at=day(3)
        ),
        document("d", [1, 0], namespace="other", ingested_at=day(1)),
    ):
        assert (await client.post("/index/upsert", json=body)).status_code == 200


def day(number: int) -> str:
    return f"2026-01-{number:02}T00:00:00Z"


async def left(sql: Sql) -> list[str]:
    return [doc_id for (doc_id,) in sql("SELECT doc_id FROM indexd.documents ORDER BY doc_id")]


@pytest.mark.parametrize(
    ("condition", "gone"),
    [
        ({"namespace": "notes", "older_than": day(2)}, ["a"]),
        ({"older_than": day(2)}, ["a", "d"]),
        ({"older_than": "2026-01-02T00:00:00.000001Z"}, ["a", "b", "d"]),
        ({"source_ref_origin": "osctx"}, ["a", "b"]),
        ({"source_ref_id": "log-1", "older_than": day(2)}, ["a"]),
        ({"source_ref_id": "log-2"}, []),
        ({"doc_id": "c"}, ["c"]),
        ({"doc_id": "c", "namespace": "other"}, []),
        ({"tags": ["x"]}, ["a", "b"]),
        ({"tags": ["x/y"]}, ["a"]),
        ({"tags": ["y", "x/y"], "namespace": "notes"}, ["a"]),
        ({"tags": ["x"], "older_than": day(2)}, ["a"]),
        ({"tags": ["whole"]}, ["c"]),
        ({"tags": ["x/y", "whole/c"]}, ["a", "c"]),
        ({"tags": ["whole/c/d"]}, []),
        (ALL, ["a", "b", "c"]),
        (ALL | {"doc_id": "b"}, ["b"]),
        ({"namespace": "  other ", "doc_id": "d"}, ["d"]),
    ],
)
async def test_all_that_is_given_must_match_and_the_dry_run_agrees(
    client: Client, sql: Sql, condition: dict[str, Any], gone: list[str]
) -> None:
    await fill(client)
    dry = (await forget(client, condition, dry_run=True)).json()
    assert sorted(await left(sql)) == ["a", "b", "c", "d"]
    real = (await forget(client, condition)).json()
    assert sorted(one["doc_id"] for one in real["forgotten_docs"]) == gone
    assert await left(sql) == sorted({"a", "b", "c", "d"} - set(gone))
    for answer in (dry, real):
        assert answer["forgotten_count"] == len(gone)
        assert answer["truncated"] is False
    assert dry["forgotten_docs"] == real["forgotten_docs"]
    assert (dry["dry_run"], real["dry_run"]) == (True, False)
    assert sql("SELECT coalesce(sum(forgotten_count), 0) FROM indexd.forget_events") == [
        (len(gone),)
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"filter": ALL, "reason": "r"}, "unsafe_forget"),
        ({"filter": ALL, "reason": "r", "confirm": False}, "unsafe_forget"),
        ({"filter": {"namespace": "notes"}, "reason": "r", "confirm": True}, "unsafe_forget"),
        ({"filter": {}, "reason": "r", "confirm": True}, "unsafe_forget"),
        ({"filter": {}, "reason": "r", "dry_run": True}, "unsafe_forget"),
        (
            {"filter": {"allow_namespace_wipe": True}, "reason": "r", "confirm": True},
            "unsafe_forget",
        ),
        (
            {
                "filter": {"allow_namespace_wipe": True, "older_than": day(9)},
                "reason": "r",
                "confirm": True,
            },
            "unsafe_forget",
        ),
        (
            {"filter": ALL | {"namespace": " "}, "reason": "r", "confirm": True},
            "unsafe_forget",
        ),
        ({"filter": {"doc_id": ""}, "reason": "r", "confirm": True}, "unsafe_forget"),
        ({"filter": {"tags": []}, "reason": "r", "confirm": True}, "unsafe_forget"),
        ({"filter": ALL, "confirm": True}, "invalid_field"),
        ({"filter": ALL, "reason": "  ", "confirm": True}, "invalid_field"),
        ({"filter": ALL, "reason": None, "confirm": True}, "invalid_field"),
        ({"filter": ALL, "reason": "r", "confirm": "true"}, "invalid_field"),
        ({"filter": ALL, "reason": "r", "confirm": 1}, "invalid_field"),
        ({"filter": ALL | {"older": day(1)}, "reason": "r", "confirm": True}, "unknown_field"),
        (
            {"filter": ALL | {"older_than": "2026-01-01"}, "reason": "r", "confirm": True},
            "invalid_field",
        ),
        (
            {"filter": ALL | {"allow_namespace_wipe": "yes"}, "reason": "r", "confirm": True},
            "invalid_field",
        ),
        ({"filter": ALL | {"tags": "x"}, "reason": "r", "confirm": True}, "invalid_field"),
        ({"reason": "r", "confirm": True}, "unsafe_forget"),
        ({"filter": None, "reason": "r", "confirm": True}, "unsafe_forget"),
        ({"filter": ALL, "reason": "r", "confirm": True, "dryRun": True}, "unknown_field"),
        ({"filter": ALL, "reason": "r", "confirm": True, "plan_id": "nonsense"}, "invalid_field"),
    ],
)
async def test_a_forget_that_says_too_little_deletes_nothing(
    client: Client, sql: Sql, body: dict[str, Any], code: str
) -> None:
    await fill(client)
    answer = await client.post("/index/forget", json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == code
    if code == "unsafe_forget":
        assert answer.json()["hint"]
    assert len(await left(sql)) == 4
    assert sql("SELECT count(*) FROM indexd.forget_events") == [(0,)]


async def test_the_query_asks_for_a_dry_run_too(client: Client, sql: Sql) -> None:
    await fill(client)
    body = {"filter": ALL, "reason": "r", "confirm": True, "dry_run": False}
    answer = (await client.post("/index/forget?dry_run=true", json=body)).json()
    assert answer["dry_run"] is True
    assert answer["forgotten_count"] == 3
    assert len(await left(sql)) == 4
    assert (await client.post("/index/forget?dry_run=maybe", json=body)).status_code == 400
    assert len(await left(sql)) == 4


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("dry_run=true&dry_run=false", "dry_run: expected once"),
        ("dry_run=false&dry_run=true", "dry_run: expected once"),
        ("dryrun=true", "dryrun: unknown field, expected dry_run"),
        ("Dry_Run=true", "Dry_Run: unknown field"),
    ],
)
async def test_a_dry_run_that_was_hardly_asked_for_deletes_nothing(
    client: Client, sql: Sql, query: str, named: str
) -> None:
    await fill(client)
    body = {"filter": ALL, "reason": "test", "confirm": True}
    answer = await client.post(f"/index/forget?{query}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(named)
    assert len(await left(sql)) == 4


async def test_a_document_with_a_blank_id_can_be_forgotten(client: Client, sql: Sql) -> None:
    await fill(client)
    await client.post("/index/upsert", json=document(" ", [1, 0]))
    assert (await forget(client, {"doc_id": " "})).json()["forgotten_count"] == 1
    assert sorted(await left(sql)) == ["a", "b", "c", "d"]


async def test_a_plan_removes_what_it_saw_and_only_once(client: Client, sql: Sql) -> None:
    await fill(client)
    plan = (await forget(client, {"tags": ["x"]}, dry_run=True)).json()
    assert plan["event_id"] is None
    assert plan["expires_at"] > datetime.now(UTC).isoformat()
    late = document("late", [1, 0], metas=[{"tags": ["x"]}])
    await client.post("/index/upsert", json=late)
    real = (await forget(client, plan_id=plan["plan_id"])).json()
    assert real["forgotten_docs"] == plan["forgotten_docs"]
    assert await left(sql) == ["c", "d", "late"]
    [event] = (await client.get("/index/audit")).json()["events"]
    assert event["filter"] == {"tags": ["x"]}
    again = await forget(client, plan_id=plan["plan_id"])
    assert (again.status_code, again.json()["code"]) == (404, "plan_not_found")


@pytest.mark.parametrize("how", ["changed", "gone"])
async def test_a_plan_whose_documents_changed_is_refused_with_the_drift(
    client: Client, sql: Sql, how: str
) -> None:
    await fill(client)
    plan = (await forget(client, ALL, dry_run=True)).json()
    if how == "changed":
        await client.post("/index/upsert", json=document("b", [0, 1]))
    else:
        await client.post("/index/delete", json={"doc_id": "b", "namespace": "notes"})
    before = await left(sql)
    refused = await forget(client, plan_id=plan["plan_id"])
    assert refused.status_code == 409
    assert refused.json()["code"] == "plan_drifted"
    assert refused.json()["details"] == {
        "drifted": 1,
        "documents": [{"doc_id": "b", "namespace": "notes", "drift": how}],
    }
    assert await left(sql) == before


async def test_a_plan_wants_confirm_and_no_filter(client: Client, sql: Sql) -> None:
    await fill(client)
    plan_id = (await forget(client, ALL, dry_run=True)).json()["plan_id"]
    assert (await forget(client, plan_id=plan_id, confirm=False)).status_code == 400
    assert (await forget(client, ALL, plan_id=plan_id)).status_code == 400
    assert (await forget(client, plan_id=plan_id, dry_run=True)).status_code == 400
    unknown = await forget(client, plan_id="00000000-0000-0000-0000-000000000000")
    assert unknown.status_code == 404
    assert len(await left(sql)) == 4


async def test_a_plan_expires(client: Client, sql: Sql) -> None:
    await fill(client)
    plan_id = (await forget(client, ALL, dry_run=True)).json()["plan_id"]
    sql("UPDATE indexd.forget_plans SET expires_at = now() - interval '1 second'")
    assert (await forget(client, plan_id=plan_id)).status_code == 404
    await forget(client, ALL, dry_run=True)
    assert sql("SELECT count(*) FROM indexd.forget_plans") == [(1,)]
    assert sql("SELECT count(*) FROM indexd.forget_plan_documents") == [(3,)]


async def dry_run(client: Client, condition: dict[str, Any]) -> str:
    planned = await forget(client, condition, dry_run=True)
    assert planned.status_code == 200, planned.text
    plan_id: str = planned.json()["plan_id"]
    return plan_id


async def test_only_the_newest_plans_of_a_namespace_are_kept(client: Client, sql: Sql) -> None:
    await fill(client)
    other = await dry_run(client, {"namespace": "other", "doc_id": "d"})
    made = [await dry_run(client, ALL) for _ in range(plans.KEPT_PLANS + 3)]
    assert sql("SELECT count(*) FROM indexd.forget_plans WHERE namespace = 'notes'") == [
        (plans.KEPT_PLANS,)
    ]
    assert sql("SELECT count(*) FROM indexd.forget_plan_documents") == [(3 * plans.KEPT_PLANS + 1,)]
    dropped = await forget(client, plan_id=made[2])
    assert (dropped.status_code, dropped.json()["code"]) == (404, "plan_not_found")
    assert (await forget(client, plan_id=other)).json()["forgotten_count"] == 1
    assert (await forget(client, plan_id=made[3])).json()["forgotten_count"] == 3


async def test_large_plans_give_way_to_newer_ones_sooner(
    client: Client, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "KEPT_DOCUMENTS", 7)
    await fill(client)
    made = [await dry_run(client, ALL) for _ in range(5)]
    kept = sql("SELECT plan_id::text FROM indexd.forget_plans ORDER BY created_at")
    assert kept == [(plan_id,) for plan_id in made[2:]]
    # The newest is kept whatever its size.
    monkeypatch.setattr(plans, "KEPT_DOCUMENTS", 2)
    last = await dry_run(client, ALL)
    assert sql("SELECT plan_id::text FROM indexd.forget_plans") == [(last,)]


async def test_expired_plans_are_deleted_in_batches_and_the_others_left(
    settings: Settings, own_sql: Sql, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "BATCH_DOCUMENTS", 2)
    async with Client(create_app(settings)) as client:
        await fill(client)
        expired = await dry_run(client, {"older_than": day(9)})
        valid = await dry_run(client, ALL)
    at = datetime.now(UTC)
    own_sql("UPDATE indexd.forget_plans SET expires_at = %s WHERE plan_id = %s", at, expired)
    async with maintenance(url, "indexd test") as connection:
        # Half deleted, it can't be carried out any more, whatever the clock of a server says.
        assert await plans._drop_batch(connection, at) is False
        assert own_sql(
            "SELECT plan_id::text FROM indexd.forget_plans WHERE expires_at > created_at"
        )
        assert own_sql(
            "SELECT expires_at = created_at FROM indexd.forget_plans WHERE plan_id = %s", expired
        ) == [(True,)]
        assert await plans.drop_expired(connection, at=at) == 1
    assert own_sql("SELECT DISTINCT plan_id::text FROM indexd.forget_plan_documents") == [(valid,)]
    assert own_sql("SELECT plan_id::text FROM indexd.forget_plans") == [(valid,)]


async def test_a_running_server_deletes_expired_plans(settings: Settings, own_sql: Sql) -> None:
    changed = msgspec.structs.replace(
        settings, forget_plan_seconds=0.2, keeper_interval_seconds=0.05
    )
    async with Client(create_app(changed)) as client:
        await fill(client)
        await dry_run(client, ALL)
        async with asyncio.timeout(30):
            while own_sql(  # noqa: ASYNC110 (the event is in the database)
                "SELECT 1 FROM indexd.forget_plan_documents"
            ):
                await asyncio.sleep(0.05)
        assert own_sql("SELECT 1 FROM indexd.forget_plans") == []


@pytest.mark.slow
async def test_the_list_is_bounded_and_the_count_is_whole(client: Client, sql: Sql) -> None:
    bodies = [document(f"d{n:04}", [1, 0]) for n in range(1200)]
    for start in range(0, 1200, 200):
        part = bodies[start : start + 200]
        await asyncio.gather(*(client.post("/index/upsert", json=body) for body in part))
    for rest in ({"dry_run": True}, {}):
        answer = (await forget(client, ALL, **rest)).json()
        assert answer["forgotten_count"] == 1200
        assert len(answer["forgotten_docs"]) == 1000
        assert answer["truncated"] is True
    assert await left(sql) == []


async def test_nothing_of_what_was_forgotten_is_found_again(client: Client, sql: Sql) -> None:
    await fill(client)
    assert (await forget(client, {"doc_id": "c"})).json()["forgotten_count"] == 1
    for body in (
        {"namespace": "notes", "embedding": [1, 0]},
        {"namespace": "notes", "query": "secret word"},
    ):
        found = (await client.post("/index/search", json=body)).json()["results"]
        assert "c" not in [hit["doc_id"] for hit in found]
    related = await client.post("/index/related", json={"doc_id": "a", "namespace": "notes"})
    assert [hit["doc_id"] for hit in related.json()["results"]] == ["b"]
    assert (await client.get("/index/stats")).json()["namespaces"] == {"notes": 2, "other": 1}
    for path in ("/index/document", "/index/lifecycle"):
        answer = await client.get(path, params={"namespace": "notes", "doc_id": "c"})
        assert answer.status_code == 404
    for table in ("chunks", "documents", "relevance", "forget_events", "forgotten_documents"):
        [(dump,)] = sql(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM indexd.{table} AS t")
        assert "secret" not in dump


async def test_the_metrics_move_by_what_was_committed(own_client: Client) -> None:
    await fill(own_client)
    await forget(own_client, ALL, dry_run=True)
    await forget(own_client, {"older_than": day(3)})
    lines = (await own_client.get("/metrics")).text.splitlines()
    assert 'index_items_forgotten_total{namespace="notes",reason="manual"} 2.0' in lines
    assert 'index_items_forgotten_total{namespace="other",reason="manual"} 1.0' in lines


async def test_the_audit_is_paged_from_the_newest(client: Client, sql: Sql) -> None:
    await fill(client)
    await forget(client, {"older_than": day(2)}, reason="too old")
    await client.post("/index/delete", json={"doc_id": "b", "namespace": "notes"})
    await forget(client, {"doc_id": "c"})
    events, cursor = [], None
    while True:
        params = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/index/audit", params=params)).json()
        events += page["events"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [(e["kind"], e["namespace"], e["forgotten_count"]) for e in events] == [
        ("manual", "notes", 1),
        ("delete", "notes", 1),
        ("manual", "other", 1),
        ("manual", "notes", 1),
    ]
    assert events[2]["event_id"] == events[3]["event_id"]
    assert events[3]["reason"] == "too old"
    assert events[3]["filter"] == {"older_than": day(2)}
    assert events == (await client.get("/index/audit")).json()["events"]
    for params in ({"limit": "0"}, {"limit": "x"}, {"cursor": "x"}, {"cursor": "bm9uc2Vuc2U="}):
        assert (await client.get("/index/audit", params=params)).status_code == 400


@pytest.mark.slow
async def test_dry_run_and_real_run_agree_on_random_filters(
    own_client: Client, rng: np.random.Generator
) -> None:
    client, now = own_client, datetime(2026, 1, 1, tzinfo=UTC)
    tags = ["a", "a/b", "a/b/c", "b", "c"]

    async def write(n: int) -> None:
        body = document(
            f"d{n % 60}",
            rng.normal(size=2),
            namespace=f"n{n % 3}",
            metas=[{"tags": [str(tag) for tag in rng.choice(tags, rng.integers(0, 3))]}],
            ingested_at=(now - timedelta(hours=int(rng.integers(0, 50)))).isoformat(),
        )
        if rng.random() < 0.7:
            body["source_ref"] = {"origin": f"o{rng.integers(3)}", "id": f"i{rng.integers(3)}"}
        assert (await client.post("/index/upsert", json=body)).status_code == 200

    for n in range(180):
        await write(n)
    for _ in range(1000):
        condition: dict[str, Any] = {}
        if rng.random() < 0.5:
            condition["namespace"] = f"n{rng.integers(3)}"
        if rng.random() < 0.4:
            moment = now - timedelta(hours=int(rng.integers(30, 60)))
            condition["older_than"] = moment.isoformat()
        if rng.random() < 0.3:
            condition["source_ref_origin"] = f"o{rng.integers(3)}"
        if rng.random() < 0.3:
            condition["source_ref_id"] = f"i{rng.integers(3)}"
        if rng.random() < 0.2 or not condition.keys() - {"namespace"}:
            condition["doc_id"] = f"d{rng.integers(60)}"
        if rng.random() < 0.3:
            condition["tags"] = [str(rng.choice(tags))]
        dry = (await forget(client, condition, dry_run=True)).json()
        real = (await forget(client, condition)).json()
        for key in ("forgotten_count", "forgotten_docs", "truncated"):
            assert dry[key] == real[key], condition
        for one in real["forgotten_docs"]:
            await write(int(one["doc_id"][1:]) + 60 * int(one["namespace"][1:]))


@pytest.mark.slow
async def test_forgets_and_upserts_at_once_lose_nothing_and_leave_no_orphan(
    own_client: Client, url: str
) -> None:
    client, rounds = own_client, 25
    names = [f"d{n}" for n in range(6)]

    async def write(worker: int) -> None:
        for n in range(rounds):
            tag = {"tags": [f"w{worker}"]}
            for name in names:
                body = document(name, [worker, n + 1], [n + 1, worker], metas=[tag, tag])
                answer = await client.post("/index/upsert", json=body)
                assert answer.status_code == 200, answer.text

    async def remove(worker: int) -> None:
        for n in range(rounds):
            condition: dict[str, Any] = {"namespace": "notes", "tags": [f"w{worker}"]}
            if n % 3 == 0:
                condition = dict(ALL)
            answer = await forget(client, condition)
            assert answer.status_code == 200, answer.text
            if n % 4 == 0:
                body = {"doc_id": names[n % 6], "namespace": "notes"}
                assert (await client.post("/index/delete", json=body)).status_code == 200

    await asyncio.gather(*(write(n) for n in range(4)), *(remove(n) for n in range(4)))
    with psycopg.connect(url) as admin:

        def one(statement: str) -> Any:
            return (admin.execute(statement).fetchone() or (None,))[0]

        assert (
            one("""
                SELECT count(*) FROM indexd.chunks
                  LEFT JOIN indexd.documents USING (namespace, doc_id)
                 WHERE documents.doc_id IS NULL
            """)
            == 0
        )
        assert (
            one("""
                SELECT count(*) FROM indexd.documents
                 WHERE chunk_count <> (
                        SELECT count(*) FROM indexd.chunks
                         WHERE chunks.namespace = documents.namespace
                           AND chunks.doc_id = documents.doc_id
                       )
            """)
            == 0
        )
        counts = admin.execute("SELECT documents, chunks FROM indexd.namespaces").fetchall()
        assert counts == [
            (
                one("SELECT count(*) FROM indexd.documents"),
                one("SELECT count(*) FROM indexd.chunks"),
            )
        ]
        assert one("SELECT sum(forgotten_count) FROM indexd.forget_events") == one(
            "SELECT count(*) FROM indexd.forgotten_documents"
        )
    metric = sum(
        float(line.rpartition(" ")[2])
        for line in (await client.get("/metrics")).text.splitlines()
        if line.startswith("index_items_forgotten_total")
    )
    with psycopg.connect(url) as admin:
        rows = admin.execute("SELECT count(*) FROM indexd.forgotten_documents").fetchone()
    assert rows == (metric,)
