"""Retention: what an upsert removes, in which order, and that nothing else ever does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest

from indexd.app import create_app
from indexd.settings import Settings
from indexd.store.forgetting import retention
from tests.conftest import Client, document

NOW = datetime(2026, 6, 1, tzinfo=UTC)

Serve = Callable[..., Any]


@pytest.fixture
def serve(settings: Settings, tmp_path: Path) -> Serve:
    """An application whose namespace `notes` has the policy given, at a fixed time."""

    @asynccontextmanager
    async def opened(policy: str, now: datetime = NOW) -> AsyncIterator[Client]:
        file = tmp_path / "policies.yaml"
        file.write_text(f"namespaces: {{notes: {{{policy}}}}}")
        changed = Settings(database_url=settings.database_url, policies=str(file), pool_size=8)
        app = create_app(changed, now=lambda: now)
        async with Client(app) as client:
            yield client

    return opened


async def put(client: Client, doc_id: str, days_old: float = 0, **rest: Any) -> dict[str, Any]:
    when = (NOW - timedelta(days=days_old)).isoformat()
    answer = await client.post(
        "/index/upsert", json=document(doc_id, [1, 0], ingested_at=when, **rest)
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["forgotten"]
    return found


async def preview(client: Client, **body: Any) -> list[tuple[str, str]]:
    answer = await client.post("/index/retention/preview", json={"namespace": "notes", **body})
    assert answer.status_code == 200, answer.text
    found = answer.json()["namespaces"]["notes"]
    assert found["count"] == len(found["would_forget"])
    return [(one["doc_id"], one["reason"]) for one in found["would_forget"]]


async def ids(client: Client) -> list[str]:
    answer = await client.post(
        "/index/search", json={"namespace": "notes", "embedding": [1, 0], "k": 100}
    )
    return sorted(hit["doc_id"] for hit in answer.json()["results"])


async def test_the_age_limit_takes_what_is_older_and_never_the_one_just_written(
    serve: Serve,
) -> None:
    async with serve("max_age_seconds: 864000") as client:
        await put(client, "edge", 10)
        assert await put(client, "old", 11) == {"ttl": 0, "retention": 0}
        assert await ids(client) == ["edge", "old"]
        assert await preview(client) == [("old", "ttl")]
        assert await put(client, "new") == {"ttl": 1, "retention": 0}
        assert await ids(client) == ["edge", "new"]


async def test_the_oldest_leave_when_there_are_too_many(serve: Serve) -> None:
    async with serve("max_items: 2, purge_strategy: oldest") as client:
        for doc_id, age in (("b", 5), ("a", 5), ("c", 1)):
            await put(client, doc_id, age)
        assert await ids(client) == ["b", "c"]
        assert await put(client, "ancient", 100) == {"ttl": 0, "retention": 1}
        assert await ids(client) == ["ancient", "c"]
        metrics = (await client.get("/metrics")).text
        assert 'index_retention_purges_total{namespace="notes",strategy="oldest"} 2.0' in metrics
        assert 'index_items_forgotten_total{namespace="notes",reason="retention"} 2.0' in metrics
        events = (await client.get("/index/audit")).json()["events"]
        assert [(e["kind"], e["strategy"], e["forgotten_count"]) for e in events] == [
            ("retention", "oldest", 1)
        ] * 2


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["oldest", "lowest_score"])
async def test_documents_of_the_future_count_like_all_others(serve: Serve, strategy: str) -> None:
    async with serve(f"max_items: 3, purge_strategy: {strategy}") as client:
        for day in range(1, 6):
            await put(client, f"future{day}", -day)
        assert await ids(client) == ["future3", "future4", "future5"]
        await put(client, "present")
        await put(client, "present2")
        assert len(await ids(client)) == 3


async def test_the_lowest_score_is_that_of_each_documents_own_half_life(serve: Serve) -> None:
    policy = "half_life_seconds: 864000, max_items: 3, purge_strategy: lowest_score"
    async with serve(policy) as client:
        await put(client, "slow", 30, half_life_seconds=8640000)  # 0.81
        await put(client, "fast", 2, half_life_seconds=86400)  # 0.25
        await put(client, "usual", 9)  # 0.54
        await put(client, "one")
        assert await ids(client) == ["one", "slow", "usual"]
        await put(client, "two")
        assert await ids(client) == ["one", "slow", "two"]


async def test_without_any_decay_the_lowest_score_is_the_oldest(serve: Serve) -> None:
    async with serve("max_items: 2, purge_strategy: lowest_score") as client:
        for doc_id, age in (("b", 5), ("a", 5), ("c", 1)):
            await put(client, doc_id, age)
        assert await ids(client) == ["b", "c"]


async def test_in_its_grace_only_age_takes_a_document(serve: Serve) -> None:
    policy = "max_items: 1, max_age_seconds: 8640000, purge_strategy: oldest, grace_seconds: 86400"
    async with serve(policy) as client:
        await put(client, "young", 0.5)
        await put(client, "newer", 0.1)
        assert await ids(client) == ["newer", "young"]
        await put(client, "old", 3)
        assert await put(client, "newest") == {"ttl": 0, "retention": 1}
        assert await ids(client) == ["newer", "newest", "young"]


async def test_nothing_but_an_upsert_removes_anything(serve: Serve) -> None:
    async with serve("max_items: 100, purge_strategy: oldest") as client:
        for n in range(5):
            await put(client, f"d{n}", 10 * n)
    later = NOW + timedelta(days=30)
    async with serve("max_items: 2, max_age_seconds: 3000000, purge_strategy: oldest", later) as (
        client
    ):
        assert await ids(client) == [f"d{n}" for n in range(5)]
        expected = [("d4", "ttl"), ("d3", "ttl"), ("d2", "ttl"), ("d1", "ttl")]
        assert await preview(client) == expected
        await client.post("/index/delete", json={"doc_id": "none", "namespace": "notes"})
        await client.get("/index/lifecycle", params={"namespace": "notes", "doc_id": "d4"})
        assert await ids(client) == [f"d{n}" for n in range(5)]


async def test_the_next_upsert_takes_what_the_preview_named(serve: Serve) -> None:
    async with serve("") as client:
        for n in range(9):
            await put(client, f"d{n}", 10 * n)
        policy = {"max_items": 3, "max_age_seconds": 65 * 86400, "purge_strategy": "oldest"}
        what_if = await preview(client, policy=policy)
        assert await preview(client) == []
    async with serve("max_items: 3, max_age_seconds: 5616000, purge_strategy: oldest") as client:
        named = await preview(client)
        assert named == what_if
        assert named == [("d8", "ttl"), ("d7", "ttl")] + [
            (f"d{n}", "retention") for n in (6, 5, 4, 3)
        ]
        assert await put(client, "d0", 0) == {"ttl": 2, "retention": 4}
        assert await ids(client) == ["d0", "d1", "d2"]


async def test_the_preview_answers_for_any_time_and_for_all_namespaces(serve: Serve) -> None:
    async with serve("max_age_seconds: 864000") as client:
        await put(client, "a", 5)
        await client.post("/index/upsert", json=document("b", [1, 0], namespace="other"))
        assert await preview(client) == []
        assert await preview(client, at=(NOW + timedelta(days=6)).isoformat()) == [("a", "ttl")]
        answer = await client.post("/index/retention/preview", json={})
        assert {
            name: (found["documents"], found["count"])
            for name, found in answer.json()["namespaces"].items()
        } == {"notes": (1, 0), "other": (1, 0)}


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"purge_strategy": "random"}, "policy.purge_strategy: 'random' is forbidden"),
        ({"max_items": 5}, "policy.purge_strategy: expected oldest or lowest_score"),
        ({"max_items": "5"}, "policy.max_items: expected a whole number"),
        ({"max_items": 0}, "policy.max_items"),
        ({"half_life": 1}, "policy.half_life: unknown field"),
        ({"max_age_seconds": -1}, "policy.max_age_seconds"),
        ({"semantic": {}}, "policy.semantic.min_score"),
        ({"semantic": {"min_score": 2}}, "policy.semantic.min_score"),
        ({"grace_seconds": -1}, "policy.grace_seconds"),
    ],
)
async def test_a_what_if_policy_is_checked_like_the_file(
    client: Client, policy: dict[str, Any], message: str
) -> None:
    answer = await client.post("/index/retention/preview", json={"policy": policy})
    assert answer.status_code == 400
    assert message in answer.json()["error"]


async def test_earlier_lines_of_a_bulk_may_be_evicted_by_later_ones(serve: Serve) -> None:
    async with serve("max_items: 2, purge_strategy: oldest") as client:
        await put(client, "known", 50)
        lines = [
            document(f"d{n}", [1, 0], ingested_at=(NOW - timedelta(days=n)).isoformat())
            for n in range(4)
        ]
        answer = await client.post(
            "/index/bulk",
            content=b"\n".join(msgspec.json.encode(line) for line in lines),
            headers={"Content-Type": "application/x-ndjson"},
        )
        assert answer.json()["accepted"] == 4
        assert answer.json()["forgotten"] == {"ttl": 0, "retention": 3}
        assert await ids(client) == ["d0", "d3"]


async def test_many_half_lives_give_the_same_order(
    serve: Serve, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = "half_life_seconds: 864000, max_items: 500, purge_strategy: lowest_score"
    async with serve(policy) as client:
        for n in range(60):
            half_life = None if n % 5 == 0 else float(rng.integers(1, 40) * 43200)
            await put(client, f"d{n:02}", float(rng.integers(0, 90)), half_life_seconds=half_life)
        few = {"half_life_seconds": 864000, "max_items": 20, "purge_strategy": "lowest_score"}
        heads = await preview(client, policy=few)
        monkeypatch.setattr(retention, "_BY_DECAY", retention._BY_DECAY.replace("1000", "3"))
        assert await preview(client, policy=few) == heads
        assert len(heads) == 40


@pytest.mark.slow
async def test_writers_at_once_keep_the_limit(serve: Serve, url: str) -> None:
    async with serve("max_items: 5, purge_strategy: oldest") as client:

        async def work(worker: int) -> None:
            for n in range(20):
                await put(client, f"w{worker}-{n}", 100 - n)

        await asyncio.gather(*(work(worker) for worker in range(8)))
        assert len(await ids(client)) == 5
    with psycopg.connect(url) as admin:
        assert admin.execute("SELECT documents, chunks FROM indexd.namespaces").fetchall() == [
            (5, 5)
        ]
        assert admin.execute(
            "SELECT sum(forgotten_count) FROM indexd.forget_events"
        ).fetchone() == (155,)
