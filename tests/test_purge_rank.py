"""The place of one document in the purge order: that of the whole list, without making the list."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import numpy as np
import psycopg
import pytest

from indexd.clock import after
from indexd.db.pool import Connection
from indexd.db.sessions import maintenance
from indexd.policy import Policies, Policy, Semantic
from indexd.store import policies
from indexd.store.forgetting import lifecycle, purge_rank, retention
from indexd.store.forgetting.lifecycle import Removal
from indexd.store.forgetting.retention import NamespaceUnderPolicy

AT = datetime(2026, 6, 1, tzinfo=UTC)
DAY = 86_400.0
SEMANTIC = Semantic(min_score=0.5)
POLICIES = [
    Policy(max_age_seconds=20 * DAY),
    Policy(max_items=12, purge_strategy="oldest"),
    Policy(max_items=12, max_age_seconds=20 * DAY, purge_strategy="oldest", grace_seconds=3 * DAY),
    Policy(max_items=12, purge_strategy="lowest_score"),
    Policy(max_items=12, max_age_seconds=20 * DAY, purge_strategy="lowest_score"),
    Policy(
        half_life_seconds=5 * DAY,
        max_items=8,
        max_age_seconds=30 * DAY,
        purge_strategy="lowest_score",
        grace_seconds=3 * DAY,
    ),
    Policy(half_life_seconds=DAY, max_items=12, purge_strategy="oldest", semantic=SEMANTIC),
    Policy(
        half_life_seconds=5 * DAY,
        max_items=8,
        max_age_seconds=30 * DAY,
        purge_strategy="lowest_score",
        grace_seconds=DAY,
        semantic=SEMANTIC,
    ),
]


@pytest.fixture
async def connection(url: str) -> AsyncIterator[Connection]:
    async with maintenance(url, "indexd test") as opened:
        yield opened


async def put(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Documents by doc_id, ingested_at, half_life, and their relevance if it is given."""
    cursor = connection.cursor()
    await cursor.executemany(
        """
        INSERT INTO indexd.documents (
            namespace, doc_id, ingested_at, half_life_seconds, chunk_count, digest, meta
        )
        VALUES ('notes', %(doc_id)s, %(ingested_at)s, %(half_life)s, 1, '', '{}')
        """,
        rows,
    )
    await cursor.executemany(
        """
        INSERT INTO indexd.relevance (
            namespace, doc_id, exposures, hits, days, last_exposed_at, best_score,
            smoothed_score, irrelevant_since
        )
        VALUES ('notes', %(doc_id)s, 1, 1, 1, %(ingested_at)s, 1, %(relevance)s, %(marked)s)
        """,
        [row for row in rows if row["relevance"] is not None],
    )
    await connection.execute(
        """
        INSERT INTO indexd.namespaces (namespace, dimension, documents, created_at)
        VALUES ('notes', 2, %(documents)s, now())
        """,
        {"documents": len(rows)},
    )


def random_documents(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Some of the same age, some from the future, half-lives from none to beyond all times."""
    half_lives = [None, None, 1e-3, DAY, 5 * DAY, 365 * DAY, 1e13, 1e300]
    return [
        {
            "doc_id": f"d{n:02}",
            "ingested_at": AT - timedelta(days=int(rng.integers(-2, 40))),
            "half_life": half_lives[rng.integers(len(half_lives))],
            "relevance": [None, 0.5, 0.9, float(rng.random())][rng.integers(4)],
            "marked": [None, None, AT][rng.integers(3)],
        }
        for n in rng.permutation(40)
    ]


async def put_in_force(connection: Connection, policy: Policy) -> None:
    async with connection.transaction():
        await policies.apply(connection, Policies(policy, {}, "test"))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("many", [2, retention.MANY_HALF_LIVES])
async def test_rank_and_end_are_those_of_the_preview(
    connection: Connection, seed: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = random_documents(np.random.default_rng(seed))
    await put(connection, documents)
    monkeypatch.setattr(purge_rank, "_BY_DECAY", purge_rank.by_decay(many))
    for policy in POLICIES:
        await put_in_force(connection, policy)
        expected = await previewed(connection, policy, documents)
        for one in documents:
            found = await lifecycle.lifecycle(connection, "notes", one["doc_id"], at=AT)
            assert (found.purge_rank, found.would_be_forgotten) == expected[one["doc_id"]], policy


async def previewed(
    connection: Connection, policy: Policy, documents: list[dict[str, Any]]
) -> dict[str, tuple[int | None, Removal | None]]:
    """Rank and end of every document, of the lists that the preview makes."""
    count = len(documents)
    ranks: dict[str, int] = {}
    if policy.max_items is not None:
        everything = Policy(
            half_life_seconds=policy.half_life_seconds,
            max_items=0,
            purge_strategy=policy.purge_strategy,
            semantic=policy.semantic,
        )
        order = await retention.condemned(
            connection, NamespaceUnderPolicy("notes", everything, count, AT)
        )
        ranks = {one.doc_id: rank for rank, one in enumerate(order.documents, 1)}
        assert len(ranks) == count
    verdict = await retention.condemned(
        connection, NamespaceUnderPolicy("notes", policy, count, AT)
    )
    reasons = {one.doc_id: one.reason for one in verdict.documents}
    assert reasons

    def end(one: dict[str, Any]) -> Removal | None:
        reason = reasons.get(one["doc_id"])
        if reason in ("semantic", "retention"):
            return Removal(reason, AT)
        if policy.max_age_seconds is None:
            return None
        expires = after(one["ingested_at"], policy.max_age_seconds)
        assert (reason == "ttl") == (expires is not None and expires < AT)
        return Removal("ttl", expires) if expires else None

    return {one["doc_id"]: (ranks.get(one["doc_id"]), end(one)) for one in documents}


class Watching(psycopg.AsyncCursor[Any]):
    """A cursor that notes in `noted` how many rows each statement answers."""

    noted: list[int]

    async def execute(self, *arguments: Any, **options: Any) -> Self:
        await super().execute(*arguments, **options)
        self.noted.append(self.rowcount)
        return self


@pytest.mark.parametrize("policy", POLICIES)
async def test_one_document_is_asked_for_however_many_are_condemned(
    connection: Connection, policy: Policy
) -> None:
    documents = random_documents(np.random.default_rng(7))
    await put(connection, documents)
    await put_in_force(connection, policy)
    noted: list[int] = []
    connection.cursor_factory = type("Noting", (Watching,), {"noted": noted})
    await lifecycle.lifecycle(connection, "notes", "d07", at=AT)
    assert 2 <= len(noted) <= 3
    assert max(noted) == 1


Explained = dict[str, Any]


async def explain(connection: Connection, policy: Policy, doc_id: str) -> list[Explained]:
    """Every node of the plan of `rank_of`, as it ran; the first has the sums."""
    state = NamespaceUnderPolicy("notes", policy, documents=0, at=AT)
    values = retention.policy_values(state) | {"doc_id": doc_id}
    cursor = await connection.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {purge_rank.statement(policy)}", values
    )
    [[plan]] = await cursor.fetchone() or ((None,),)
    return list(nodes(plan["Plan"]))


def nodes(node: Explained) -> Iterator[Explained]:
    yield node
    for child in node.get("Plans", ()):
        yield from nodes(child)


async def fill(connection: Connection, documents: int) -> None:
    """Documents d1, the newest, to the oldest, an hour apart, of one of three half-lives."""
    await connection.execute(
        """
        INSERT INTO indexd.documents (
            namespace, doc_id, ingested_at, half_life_seconds, chunk_count, digest, meta
        )
        SELECT 'notes', 'd' || n, %(at)s - n * interval '1 hour',
               (ARRAY[NULL, 864000, 8640000])[n %% 3 + 1], 1, '', '{}'
          FROM generate_series(1, %(documents)s) AS n
        """,
        {"documents": documents, "at": AT},
    )
    await connection.execute("VACUUM ANALYZE indexd.documents")


@pytest.mark.parametrize("strategy", ["oldest", "lowest_score"])
async def test_a_place_costs_the_index_entries_before_it_and_no_list(
    connection: Connection, strategy: Any
) -> None:
    policy = Policy(half_life_seconds=30 * DAY, max_items=10, purge_strategy=strategy)
    await connection.execute("SET plan_cache_mode = force_custom_plan")
    blocks: dict[tuple[int, str], int] = {}
    for documents in (3_000, 30_000):
        await connection.execute("TRUNCATE indexd.documents")
        await fill(connection, documents)
        # Of the half-life of 10 days, n is 1 more than a multiple of 3: the oldest leaves first.
        for place, doc_id in (("first", f"d{documents - 2}"), ("last", "d2")):
            plan = await explain(connection, policy, doc_id)
            blocks[documents, place] = plan[0]["Shared Hit Blocks"] + plan[0]["Shared Read Blocks"]
            ran = [node for node in plan if node["Actual Loops"]]
            assert not {"Sort", "WindowAgg", "Seq Scan"} & {node["Node Type"] for node in ran}
            rows = [node for node in ran if node["Node Type"] in ("Index Scan", "Bitmap Heap Scan")]
            assert sum(node["Actual Rows"] * node["Actual Loops"] for node in rows) <= 1
    assert blocks[30_000, "first"] <= blocks[3_000, "first"] + 20
    # Entries are read, even where the visibility map sends a scan to their rows.
    assert blocks[30_000, "last"] < 30_000 / 20
