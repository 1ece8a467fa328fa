"""A search in one statement: only what it proves, under what still holds, is an answer."""

from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from indexd.db.pool import Connection, Database
from indexd.errors import DimensionMismatch
from indexd.policy import Policies, Policy, Semantic
from indexd.settings import Settings
from indexd.store import policies
from indexd.store import search as store
from indexd.store.documents import Chunk, Document
from indexd.store.filters import Filters
from indexd.store.search import NamespaceMemory, Query, Tuning, one_statement
from indexd.store.search.memory import FAILURES, RETRY
from indexd.store.search.one_statement import Shortcut
from indexd.store.writing import upsert
from indexd.vectors import Embedding, normalised
from tests.test_probe_sweep import AT, DAY, DIMENSION, Corpus, connection, store_and_index

pytestmark = pytest.mark.slow

__all__ = ["connection"]

K = 10
TUNING = Tuning(ef=200)


class Process:
    """A database and what a process remembers of its namespaces."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.memory = NamespaceMemory()

    async def long_way(self, query: Query) -> store.Found:
        return await self.database.read(
            lambda connection: store.in_snapshot(connection, self.memory, query, TUNING)
        )

    async def short_way(self, query: Query, tuning: Tuning = TUNING) -> store.Found | None:
        shortcut = store.remembered(self.memory, query, tuning)
        assert shortcut is not None
        return await self.asked(shortcut, tuning)

    async def asked(self, shortcut: Shortcut, tuning: Tuning = TUNING) -> store.Found | None:
        sent = one_statement.statement(shortcut, tuning)
        rows = await self.database.read_once(sent.settings, sent.text, sent.values)
        told = [one_statement.ShortcutRow.of(row) for row in rows]
        return store.learned(self.memory, shortcut, told, tuning)

    def tries(self, query: Query) -> bool:
        return store.remembered(self.memory, query, TUNING) is not None


@pytest.fixture
async def process(url: str, connection: Connection) -> AsyncIterator[Process]:
    async with Database(url, Settings()) as opened:
        yield Process(opened)


def query_of(rng: np.random.Generator) -> Embedding:
    return normalised(rng.normal(size=DIMENSION).astype(np.float32))


def search_for(vector: Embedding) -> Query:
    return Query(namespace="ns", mode="vector", k=K, at=AT, vector=vector)


async def test_the_short_way_answers_as_the_long_one(
    connection: Connection, process: Process, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 1_500, spread_days=400)
    await store_and_index(connection, "ns", corpus)
    await process.long_way(search_for(query_of(rng)))
    answered = 0
    for _ in range(40):
        search = search_for(query_of(rng))
        if found := await process.short_way(search):
            answered += 1
            expected = await process.long_way(search)
            assert msgspec.to_builtins(found.hits) == msgspec.to_builtins(expected.hits)
    assert answered > 20


async def test_no_shortcut_is_tried_before_the_namespace_was_seen(
    connection: Connection, process: Process, rng: np.random.Generator
) -> None:
    await store_and_index(connection, "ns", Corpus(rng, 300, spread_days=10))
    assert not process.tries(search_for(query_of(rng)))


async def test_words_take_the_long_way(
    connection: Connection, process: Process, rng: np.random.Generator
) -> None:
    await store_and_index(connection, "ns", Corpus(rng, 300, spread_days=10))
    plain = search_for(query_of(rng))
    await process.long_way(plain)
    assert process.tries(plain)
    words = msgspec.structs.replace(plain, vector=None, mode="lexical", text="word")
    assert not process.tries(words)


@pytest.mark.parametrize(
    "filters",
    [
        Filters(tags=["t1"]),
        Filters(doc_id=["d00001", "d00002"]),
        Filters(meta={}),
        Filters(ingested_after=AT - timedelta(days=3), ingested_before=AT),
        Filters(source_path=["none/such"], source_ref_origin=["none"]),
    ],
)
@pytest.mark.parametrize("half_life", [None, DAY])
async def test_a_rare_filter_is_scanned_in_one_statement(
    connection: Connection,
    process: Process,
    rng: np.random.Generator,
    filters: Filters,
    half_life: float | None,
) -> None:
    corpus = Corpus(rng, 300, spread_days=10)
    corpus.own = [None, 3600.0, 1e12] * 100
    await store_and_index(connection, "ns", corpus)
    async with connection.transaction():
        await policies.apply(connection, Policies(Policy(half_life), {}, "test"))
    search = msgspec.structs.replace(search_for(query_of(rng)), filters=filters)
    expected = await process.long_way(search)
    found = await process.short_way(search)
    assert found is not None
    assert msgspec.to_builtins(found.hits) == msgspec.to_builtins(expected.hits)


async def test_a_small_namespace_is_scanned_in_one_statement(
    connection: Connection, process: Process, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 200, spread_days=10)
    corpus.own = [None, 3600.0] * 100
    async with connection.transaction():
        await upsert.upsert_many(connection, corpus.documents("ns"), at=AT)
    for _ in range(5):
        search = search_for(query_of(rng))
        expected = await process.long_way(search)
        found = await process.short_way(search)
        assert found is not None
        assert found.scored == 200
        assert msgspec.to_builtins(found.hits) == msgspec.to_builtins(expected.hits)


async def test_a_namespace_that_took_another_dimension_is_not_read(
    connection: Connection, process: Process, rng: np.random.Generator
) -> None:
    """Vectors of two dimensions can't be compared: that would be an error of the database."""
    corpus = Corpus(rng, 20, spread_days=10)
    async with connection.transaction():
        await upsert.upsert_many(connection, corpus.documents("ns"), at=AT)
    search = search_for(query_of(rng))
    await process.long_way(search)
    shortcut = store.remembered(process.memory, search, TUNING)
    assert shortcut is not None
    await connection.execute("DELETE FROM indexd.chunks")
    await connection.execute("DELETE FROM indexd.documents")
    await connection.execute("UPDATE indexd.namespaces SET documents = 0, chunks = 0")
    chunk = Chunk("c", "", {}, (), None, normalised(np.ones(DIMENSION + 1, np.float32)))
    async with connection.transaction():
        await upsert.upsert_many(connection, [Document("ns", "a", (chunk,), {})], at=AT)
    assert await process.asked(shortcut) is None
    with pytest.raises(DimensionMismatch):
        await process.long_way(search)


@pytest.mark.parametrize(
    "change",
    [
        "DROP INDEX indexd.hnsw_{prefix}_6",
        "UPDATE indexd.namespaces SET documents = 0",
        "UPDATE indexd.namespaces SET dimension = 7",
        Policy(30 * DAY),
        Policy(semantic=Semantic(min_score=0.5)),
    ],
)
async def test_what_no_longer_holds_proves_nothing(
    connection: Connection, process: Process, rng: np.random.Generator, change: str | Policy
) -> None:
    await store_and_index(connection, "ns", Corpus(rng, 300, spread_days=10))
    search = search_for(query_of(rng))
    await process.long_way(search)
    assert await process.short_way(search)
    if isinstance(change, Policy):
        async with connection.transaction():
            await policies.apply(connection, Policies(change, {}, "changed"))
    else:
        cursor = await connection.execute(
            "SELECT split_part(relname, '_', 2) FROM pg_class WHERE relname ~ '^hnsw_'"
        )
        [prefix] = await cursor.fetchone() or ("",)
        await connection.execute(change.format(prefix=prefix))
    assert await process.short_way(search) is None
    if isinstance(change, Policy):
        await process.long_way(search)
        assert not process.tries(search)


async def test_a_half_life_of_its_own_among_the_nearest_proves_nothing(
    connection: Connection, process: Process, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 500, spread_days=400)
    corpus.own = [DAY] * 500
    await store_and_index(connection, "ns", corpus)
    search = search_for(query_of(rng))
    await process.long_way(search)
    assert await process.short_way(search) is None


async def test_a_hard_search_is_made_the_long_way(
    connection: Connection, process: Process, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 500, spread_days=400)
    await store_and_index(connection, "ns", corpus)
    search = search_for(query_of(rng))
    await process.long_way(search)
    assert await process.short_way(search) is not None
    high = msgspec.structs.replace(TUNING, lid_threshold=1.0)
    assert await process.short_way(search, high) is None


async def test_more_equals_than_were_looked_at_prove_nothing(
    connection: Connection, process: Process, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 300, spread_days=10)
    corpus.vectors[:100] = corpus.vectors[0]
    await store_and_index(connection, "ns", corpus)
    search = search_for(corpus.vectors[0])
    expected = await process.long_way(search)
    assert [hit.doc_id for hit in expected.hits] == [f"d{n:05}" for n in range(K)]
    assert await process.short_way(search) is None


async def test_shortcuts_that_prove_nothing_become_rare(
    connection: Connection, process: Process, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 500, spread_days=400)
    corpus.own = [DAY] * 500
    await store_and_index(connection, "ns", corpus)
    search = search_for(query_of(rng))
    await process.long_way(search)
    tried = 0
    for _ in range(64):
        if shortcut := store.remembered(process.memory, search, TUNING):
            tried += 1
            assert await process.asked(shortcut) is None
    assert FAILURES <= tried <= FAILURES + 64 // RETRY + 1
