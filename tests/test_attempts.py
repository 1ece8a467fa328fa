"""A search in one statement: only what it proves, under what still holds, is an answer."""

from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from indexd.db import Connection, Database
from indexd.errors import DimensionMismatch
from indexd.policy import Policies, Policy, Semantic
from indexd.settings import Settings
from indexd.store import attempts, policies, upsert
from indexd.store import search as store
from indexd.store.documents import Chunk, Document
from indexd.store.filters import Filters
from indexd.store.search import Search
from indexd.store.tuning import Tuning
from indexd.vectors import Embedding, normalised
from tests.test_probe_sweep import AT, DAY, DIMENSION, Corpus, connection, store_and_index

pytestmark = pytest.mark.slow

__all__ = ["connection"]

K = 10
TUNING = Tuning(ef=200)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    attempts._seen.clear()
    attempts._vain.clear()


@pytest.fixture
async def database(url: str, connection: Connection) -> AsyncIterator[Database]:
    async with Database(url, Settings()) as opened:
        yield opened


def query_of(rng: np.random.Generator) -> Embedding:
    return normalised(rng.normal(size=DIMENSION).astype(np.float32))


def search_for(vector: Embedding) -> Search:
    return Search("ns", "vector", K, Filters(), "", vector)


async def long_way(database: Database, search: Search) -> store.Found:
    return await database.read(
        lambda connection: store.search(connection, search, at=AT, tuning=TUNING)
    )


async def short_way(database: Database, search: Search) -> store.Found | None:
    attempt = store.attempt(search, at=AT, tuning=TUNING)
    assert attempt is not None
    rows = await database.read_once(attempt.settings, attempt.statement, attempt.values)
    return store.proven(attempt, rows)


async def test_the_short_way_answers_as_the_long_one(
    connection: Connection, database: Database, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 1_500, spread_days=400)
    await store_and_index(connection, "ns", corpus)
    await long_way(database, search_for(query_of(rng)))
    answered = 0
    for _ in range(40):
        search = search_for(query_of(rng))
        if found := await short_way(database, search):
            answered += 1
            expected = await long_way(database, search)
            assert msgspec.to_builtins(found.hits) == msgspec.to_builtins(expected.hits)
    assert answered > 20


async def test_nothing_is_attempted_before_the_namespace_was_seen(
    connection: Connection, rng: np.random.Generator
) -> None:
    await store_and_index(connection, "ns", Corpus(rng, 300, spread_days=10))
    assert store.attempt(search_for(query_of(rng)), at=AT, tuning=TUNING) is None


async def test_words_take_the_long_way(
    connection: Connection, database: Database, rng: np.random.Generator
) -> None:
    await store_and_index(connection, "ns", Corpus(rng, 300, spread_days=10))
    plain = search_for(query_of(rng))
    await long_way(database, plain)
    assert store.attempt(plain, at=AT, tuning=TUNING)
    words = msgspec.structs.replace(plain, vector=None, mode="lexical", text="word")
    assert store.attempt(words, at=AT, tuning=TUNING) is None


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
    database: Database,
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
    expected = await long_way(database, search)
    found = await short_way(database, search)
    assert found is not None
    assert msgspec.to_builtins(found.hits) == msgspec.to_builtins(expected.hits)


async def test_a_small_namespace_is_scanned_in_one_statement(
    connection: Connection, database: Database, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 200, spread_days=10)
    corpus.own = [None, 3600.0] * 100
    async with connection.transaction():
        await upsert.upsert_many(connection, corpus.documents("ns"), at=AT)
    for _ in range(5):
        search = search_for(query_of(rng))
        expected = await long_way(database, search)
        found = await short_way(database, search)
        assert found is not None
        assert found.scored == 200
        assert msgspec.to_builtins(found.hits) == msgspec.to_builtins(expected.hits)


async def test_a_namespace_that_took_another_dimension_is_not_read(
    connection: Connection, database: Database, rng: np.random.Generator
) -> None:
    """Vectors of two dimensions can't be compared: that would be an error of the database."""
    corpus = Corpus(rng, 20, spread_days=10)
    async with connection.transaction():
        await upsert.upsert_many(connection, corpus.documents("ns"), at=AT)
    search = search_for(query_of(rng))
    await long_way(database, search)
    attempt = store.attempt(search, at=AT, tuning=TUNING)
    assert attempt is not None
    await connection.execute("DELETE FROM indexd.chunks")
    await connection.execute("DELETE FROM indexd.documents")
    await connection.execute("UPDATE indexd.namespaces SET documents = 0, chunks = 0")
    chunk = Chunk("c", "", {}, (), None, normalised(np.ones(DIMENSION + 1, np.float32)))
    async with connection.transaction():
        await upsert.upsert_many(connection, [Document("ns", "a", (chunk,), {})], at=AT)
    rows = await database.read_once(attempt.settings, attempt.statement, attempt.values)
    assert store.proven(attempt, rows) is None
    with pytest.raises(DimensionMismatch):
        await long_way(database, search)


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
    connection: Connection, database: Database, rng: np.random.Generator, change: str | Policy
) -> None:
    await store_and_index(connection, "ns", Corpus(rng, 300, spread_days=10))
    search = search_for(query_of(rng))
    await long_way(database, search)
    assert await short_way(database, search)
    if isinstance(change, Policy):
        async with connection.transaction():
            await policies.apply(connection, Policies(change, {}, "changed"))
    else:
        cursor = await connection.execute(
            "SELECT split_part(relname, '_', 2) FROM pg_class WHERE relname ~ '^hnsw_'"
        )
        [prefix] = await cursor.fetchone() or ("",)
        await connection.execute(change.format(prefix=prefix))
    assert await short_way(database, search) is None
    if isinstance(change, Policy):
        await long_way(database, search)
        assert store.attempt(search, at=AT, tuning=TUNING) is None


async def test_a_half_life_of_its_own_among_the_nearest_proves_nothing(
    connection: Connection, database: Database, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 500, spread_days=400)
    corpus.own = [DAY] * 500
    await store_and_index(connection, "ns", corpus)
    search = search_for(query_of(rng))
    await long_way(database, search)
    assert await short_way(database, search) is None


def test_the_dimensionality_is_told_by_the_nearest_alone(rng: np.random.Generator) -> None:
    for dimensions in (3, 30, 300):
        radii = np.sort(rng.uniform(size=2_000)) ** (1 / dimensions)
        cosines = 1 - radii**2 / 2
        found = attempts.dimensionality(cosines[:1_000].tolist(), cosines[-1], 2_000)
        assert found == pytest.approx(dimensions, rel=0.1)


async def test_a_hard_search_is_made_the_long_way(
    connection: Connection, database: Database, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 500, spread_days=400)
    await store_and_index(connection, "ns", corpus)
    search = search_for(query_of(rng))
    await long_way(database, search)
    assert await short_way(database, search) is not None
    hard = msgspec.structs.replace(TUNING, hard=1.0)
    attempt = store.attempt(search, at=AT, tuning=hard)
    assert attempt is not None
    rows = await database.read_once(attempt.settings, attempt.statement, attempt.values)
    assert store.proven(attempt, rows) is None


async def test_more_equals_than_were_looked_at_prove_nothing(
    connection: Connection, database: Database, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 300, spread_days=10)
    corpus.vectors[:100] = corpus.vectors[0]
    await store_and_index(connection, "ns", corpus)
    search = search_for(corpus.vectors[0])
    expected = await long_way(database, search)
    assert [hit.doc_id for hit in expected.hits] == [f"d{n:05}" for n in range(K)]
    assert await short_way(database, search) is None


async def test_attempts_in_vain_become_rare(
    connection: Connection, database: Database, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 500, spread_days=400)
    corpus.own = [DAY] * 500
    await store_and_index(connection, "ns", corpus)
    search = search_for(query_of(rng))
    await long_way(database, search)
    made = 0
    for _ in range(64):
        attempt = store.attempt(search, at=AT, tuning=TUNING)
        if attempt:
            made += 1
            rows = await database.read_once(attempt.settings, attempt.statement, attempt.values)
            assert store.proven(attempt, rows) is None
    assert attempts.PATIENCE <= made <= attempts.PATIENCE + 64 // attempts.RETRY + 1
