"""Probe and sweep against brute force: the same k, in the same order, whatever the half-lives."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pgvector.psycopg import register_vector_async

from indexd.db.pool import Connection
from indexd.db.sessions import Session, parameters
from indexd.store import indexes
from indexd.store import search as store
from indexd.store.documents import Chunk, Document
from indexd.store.filters import Filters
from indexd.store.indexes import Rules
from indexd.store.namespaces import Facts, facts
from indexd.store.search import NamespaceMemory, Query, age_histogram
from indexd.store.search import plan as plans
from indexd.store.search.bounds import cutoff, epsilon, half_life_bound, local_dimensionality
from indexd.store.search.costs import Tuning
from indexd.store.writing import upsert
from indexd.vectors import normalised

pytestmark = pytest.mark.slow

AT = datetime(2026, 6, 1, tzinfo=UTC)
DAY = 86_400.0
DIMENSION = 6

PUSHING = Tuning(
    ef=12,
    newest_rows=4,
    newest_rows_filtered=8,
    slice_rows=25,
    exact_row=1e9,
    matching_row=1e9,
    undecayed_row=1e9,
    statement=0.0,
)
"""Small arms and a dear exact scan: the answer must come from the bound and the sweep."""

HALF_LIVES = [None, 60.0, 3600.0, DAY, 8.0, 8.0000000001, 30 * DAY, 1e12, 1e-3, 5e-324, 1.7e308]


class Corpus:
    """Documents of one chunk each, in the database and in numpy."""

    def __init__(self, rng: np.random.Generator, chunks: int, spread_days: float) -> None:
        vectors = rng.normal(size=(chunks, DIMENSION)).astype(np.float32)
        vectors[rng.random(chunks) < 0.1] = vectors[0]  # ties
        self.vectors = np.array([normalised(vector) for vector in vectors])
        self.age = rng.random(chunks) * spread_days * DAY
        self.age[rng.random(chunks) < 0.05] *= -1  # from the future
        self.age[rng.random(chunks) < 0.05] = self.age[0]  # at the same moment
        self.tags = rng.integers(0, 4, chunks)
        self.own: list[float | None] = [None] * chunks

    def documents(self, namespace: str) -> list[Document]:
        return [
            Document(
                namespace,
                f"d{n:05}",
                (Chunk(f"c{n}", "", {}, (f"t{self.tags[n]}",), None, vector),),
                {},
                half_life_seconds=self.own[n],
                ingested_at=AT - timedelta(seconds=float(self.age[n])),
            )
            for n, vector in enumerate(self.vectors)
        ]

    def best(
        self, query: NDArray[np.float32], half_life: float | None, k: int, tag: int | None
    ) -> list[tuple[str, float]]:
        """Brute force, in float64."""
        cosine = self.vectors.astype(np.float64) @ query.astype(np.float64)
        scores = []
        for n, own in enumerate(self.own):
            span = own if own is not None else half_life
            age = max(round(self.age[n] * 1e6) / 1e6, 0.0)
            exponent = age / span if span else 0.0
            scores.append(cosine[n] * (0.5**exponent if exponent < 1000 else 0.0))
        kept = [n for n in range(len(scores)) if tag is None or self.tags[n] == tag]
        kept.sort(key=lambda n: (-scores[n], f"d{n:05}"))
        return [(f"d{n:05}", scores[n]) for n in kept[:k]]


@pytest.fixture
async def connection(url: str) -> AsyncIterator[Connection]:
    async with await Session.connect(url, autocommit=True, **parameters("tests")) as opened:
        await register_vector_async(opened)
        await opened.execute("SET plan_cache_mode = force_custom_plan")
        # Few rows are read faster without an index; these tests are about the index.
        await opened.execute("SET enable_seqscan = off")
        yield opened


async def store_and_index(connection: Connection, namespace: str, corpus: Corpus) -> None:
    """An index of so many links and candidates that it misses nothing among so few."""
    async with connection.transaction():
        await upsert.upsert_many(connection, corpus.documents(namespace), at=AT)
    [found] = [n for n in await indexes.look(connection) if n.name == namespace]
    await indexes.build(connection, found, Rules(1, 100, 0.2, 48, 400))
    await connection.execute("ANALYZE indexd.chunks")
    await age_histogram.count(connection, namespace, at=AT)


async def space_of(connection: Connection, namespace: str, half_life: float | None) -> Facts:
    found = await facts(connection, namespace, DIMENSION, AT)
    assert found is not None
    assert found.indexed
    return Facts(namespace, DIMENSION, found.chunks, half_life, indexed=True)


async def search(
    connection: Connection,
    space: Facts,
    query: NDArray[np.float32],
    *,
    k: int = 10,
    filters: Filters | None = None,
    tuning: Tuning = PUSHING,
    **more: Any,
) -> store.Found:
    """By the plan for what the planner estimates, as a snapshot would be searched."""
    wanted = Query(
        namespace=space.namespace,
        mode="vector",
        k=k,
        filters=filters or Filters(),
        vector=query,
        **{"at": AT, **more},
    )
    plan = plans.choose(wanted, space, space.chunks, tuning)
    async with connection.transaction():
        return await store.carry_out(connection, NamespaceMemory(), wanted, space, plan, tuning)


def assert_same(found: list[Any], expected: list[tuple[str, float]]) -> None:
    """Equal scores, and equal documents but where float32 can't tell two apart."""
    assert [hit.score for hit in found] == pytest.approx([s for _, s in expected], abs=1e-6)
    for hit, (doc_id, score) in zip(found, expected, strict=True):
        near = [d for d, s in expected if abs(s - score) < 1e-6]
        assert hit.doc_id == doc_id or hit.doc_id in near or abs(hit.score - score) < 1e-6


@pytest.mark.parametrize("policy", [None, 1.0, 60.0, DAY, 30 * DAY, 3650 * DAY, 1e300, 5e-324])
@pytest.mark.parametrize("mixed", [False, True])
async def test_the_answer_is_that_of_brute_force(
    connection: Connection, rng: np.random.Generator, policy: float | None, mixed: bool
) -> None:
    corpus = Corpus(rng, 1_500, spread_days=400)
    if mixed:
        corpus.own = [HALF_LIVES[n] for n in rng.integers(0, len(HALF_LIVES), 1_500)]
    await store_and_index(connection, "ns", corpus)
    space = await space_of(connection, "ns", policy)
    for number in range(12):
        query = normalised(rng.normal(size=DIMENSION).astype(np.float32))
        tag = int(rng.integers(0, 4)) if number % 3 == 0 else None
        k = int(rng.integers(1, 30))
        filters = Filters(tags=None if tag is None else [f"t{tag}"])
        found = await search(connection, space, query, k=k, filters=filters)
        assert_same(found.hits, corpus.best(query, policy, k, tag))


@pytest.mark.parametrize("policy", [None, DAY, 30 * DAY, 3650 * DAY])
@pytest.mark.parametrize("least", [-0.2, 0.2, 0.6, 0.99])
async def test_what_is_similar_enough_is_ranked_as_by_brute_force(
    connection: Connection, rng: np.random.Generator, policy: float | None, least: float
) -> None:
    corpus = Corpus(rng, 1_500, spread_days=400)
    corpus.own = [HALF_LIVES[n] for n in rng.integers(0, len(HALF_LIVES), 1_500)]
    await store_and_index(connection, "ns", corpus)
    space = await space_of(connection, "ns", policy)
    for number in range(12):
        query = normalised(rng.normal(size=DIMENSION).astype(np.float32))
        cosine = corpus.vectors.astype(np.float64) @ query.astype(np.float64)
        # No chunk lies so near to the threshold that float32 decides.
        threshold = least + next(s for s in (0, 1e-4, 2e-4) if min(abs(cosine - least - s)) > 1e-6)
        expected = [
            (doc_id, score)
            for doc_id, score in corpus.best(query, policy, 1_500, None)
            if cosine[int(doc_id[1:])] >= threshold
        ]
        offset = (0, 3, 40)[number % 3]
        found = await search(
            connection, space, query, k=offset + 10, offset=offset, min_similarity=threshold
        )
        assert_same(found.hits, expected[offset : offset + 10])


@pytest.mark.parametrize("policy", [None, DAY, 365 * DAY])
async def test_pages_are_the_ranking_in_parts(
    connection: Connection, rng: np.random.Generator, policy: float | None
) -> None:
    corpus = Corpus(rng, 1_500, spread_days=400)
    await store_and_index(connection, "ns", corpus)
    space = await space_of(connection, "ns", policy)
    query = normalised(rng.normal(size=DIMENSION).astype(np.float32))
    pages = [
        hit
        for offset in range(0, 200, 20)
        for hit in (await search(connection, space, query, k=offset + 20, offset=offset)).hits
    ]
    assert_same(pages, corpus.best(query, policy, 200, None))
    assert len({hit.doc_id for hit in pages}) == 200


async def test_a_search_in_the_past_sees_what_was_there(
    connection: Connection, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 1_500, spread_days=400)
    await store_and_index(connection, "ns", corpus)
    space = await space_of(connection, "ns", 30 * DAY)
    past = AT - timedelta(days=200)
    query = normalised(rng.normal(size=DIMENSION).astype(np.float32))
    found = await search(
        connection, space, query, k=20, at=past, filters=Filters(ingested_until=past)
    )
    there = [n for n in range(1_500) if corpus.age[n] >= 200 * DAY]
    corpus.age = corpus.age - 200 * DAY
    ranked = corpus.best(query, 30 * DAY, 1_500, None)
    assert_same(found.hits, [one for one in ranked if int(one[0][1:]) in there][:20])


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 2**32),
    chunks=st.integers(1, 400),
    spread_days=st.sampled_from([0.0, 1e-3, 1.0, 400.0, 20_000.0]),
    policy=st.sampled_from(HALF_LIVES),
    own=st.lists(st.sampled_from(HALF_LIVES), min_size=1, max_size=4),
    k=st.integers(1, 60),
    turned=st.booleans(),
)
async def test_random_corpora_give_the_answer_of_brute_force(
    connection: Connection,
    seed: int,
    chunks: int,
    spread_days: float,
    policy: float | None,
    own: list[float | None],
    k: int,
    turned: bool,
) -> None:
    rng = np.random.default_rng(seed)
    namespace = f"n{seed}-{chunks}-{spread_days}-{policy}-{own}-{k}-{turned}"[:120]
    corpus = Corpus(rng, chunks, spread_days)
    corpus.own = [own[n] for n in rng.integers(0, len(own), chunks)]
    await store_and_index(connection, namespace, corpus)
    query = normalised(rng.normal(size=DIMENSION).astype(np.float32))
    if turned:  # every similarity negative, or nearly
        query = normalised(-corpus.vectors.sum(axis=0) - query)
    space = await space_of(connection, namespace, policy)
    found = await search(connection, space, query, k=k)
    assert_same(found.hits, corpus.best(query, policy, k, None))
    await connection.execute("DELETE FROM indexd.chunks WHERE namespace = %s", (namespace,))
    await indexes.drop(connection, indexes.index_name(namespace, DIMENSION))


def test_the_dimensionality_is_the_estimate_by_maximum_likelihood(
    rng: np.random.Generator,
) -> None:
    def estimated(cosines: NDArray[np.float64]) -> float:
        return local_dimensionality(np.sort(cosines)[::-1].tolist())

    cosines = rng.uniform(0.1, 0.9, size=50)
    distances = np.sqrt(2 - 2 * cosines)
    by_hand = -1 / np.mean(np.log(distances / distances.max()))
    assert estimated(cosines) == pytest.approx(by_hand)
    # Distances that grow as they do among points spread evenly over this number of dimensions.
    for dimensions in (3, 30, 300):
        radii = np.sort(rng.uniform(size=20_000)) ** (1 / dimensions)
        assert estimated(1 - radii**2 / 2) == pytest.approx(dimensions, rel=0.05)
    for same in (0.5, 1.0):
        assert estimated(np.full(9, same)) == 0


async def test_a_search_of_high_dimensionality_is_given_more_of_the_index(
    connection: Connection, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 2_000, spread_days=400)
    await store_and_index(connection, "ns", corpus)
    space = await space_of(connection, "ns", None)
    query = normalised(rng.normal(size=DIMENSION).astype(np.float32))

    async def scored(**rest: float) -> int:
        tuning = msgspec.structs.replace(PUSHING, ef=60, **rest)
        found = await search(connection, space, query, k=5, tuning=tuning)
        assert_same(found.hits, corpus.best(query, None, 5, None))
        return found.scored

    assert await scored(lid_threshold=1_000.0) < 100
    assert 600 < await scored(lid_threshold=1.0, high_lid_rows=600) < 1_000
    assert 1_000 < await scored(lid_threshold=1.0, high_lid_rows=100, high_lid_share=0.5) < 1_500
    # Where that costs no less, all of them.
    assert await scored(lid_threshold=1.0, high_lid_rows=600, exact_row=1.0) > 2_000
    # Under load nobody is given more.
    assert await scored(lid_threshold=1.0, high_lid_rows=600, candidate_share=0.9) < 100


async def test_a_wrong_age_histogram_costs_time_and_no_answer(
    connection: Connection, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 800, spread_days=100)
    await store_and_index(connection, "ns", corpus)
    await connection.execute("UPDATE indexd.chunk_ages SET quantiles = '{0,1}', chunks = 3")
    space = await space_of(connection, "ns", 30 * DAY)
    query = normalised(rng.normal(size=DIMENSION).astype(np.float32))
    found = await search(connection, space, query)
    assert_same(found.hits, corpus.best(query, 30 * DAY, 10, None))


async def test_a_recent_search_scores_few_of_many(
    connection: Connection, rng: np.random.Generator
) -> None:
    corpus = Corpus(rng, 5_000, spread_days=1_000)
    await store_and_index(connection, "ns", corpus)
    space = await space_of(connection, "ns", DAY)
    query = normalised(rng.normal(size=DIMENSION).astype(np.float32))
    found = await search(connection, space, query, tuning=Tuning(ef=100))
    assert found.scored < 1_000
    assert_same(found.hits, corpus.best(query, DAY, 10, None))


@pytest.mark.parametrize("half_life", [5e-324, 1e-300, 0.1, 1.0, 1.5, 2.0, 8.0000000001, 1.7e308])
async def test_a_class_bounds_the_half_lives_in_it(
    connection: Connection, half_life: float
) -> None:
    body = Document(
        "ns",
        "a",
        (Chunk("c", "", {}, (), None, normalised(np.ones(2, np.float32))),),
        {},
        half_life_seconds=half_life,
    )
    await upsert.upsert(connection, body, at=AT)
    cursor = await connection.execute("SELECT half_life_class FROM indexd.chunks")
    [half_life_class] = await cursor.fetchone() or (None,)
    assert half_life <= half_life_bound(half_life_class, None)
    assert half_life_class < -1000 or half_life_bound(half_life_class, None) <= 2.1 * half_life


@given(
    age=st.floats(0, 1e11),
    half_life=st.floats(1e-9, 1e12),
    upper=st.floats(1e-6, 1.001),
    share=st.floats(1e-12, 1),
)
def test_nothing_older_than_the_cutoff_reaches_kth(
    age: float, half_life: float, upper: float, share: float
) -> None:
    kth = upper * share
    at = AT.timestamp()
    if at - age < cutoff(at, half_life, upper, kth):
        assert age / half_life > 1e6 or upper * 0.5 ** (age / half_life) < kth


@pytest.mark.parametrize("dimension", [2, 384, 4_000])
def test_epsilon_covers_halfvec(rng: np.random.Generator, dimension: int) -> None:
    query = normalised(rng.normal(size=dimension).astype(np.float32))
    for _ in range(50):
        chunk = normalised(rng.normal(size=dimension).astype(np.float32))
        exact = float(query.astype(np.float64) @ chunk.astype(np.float64))
        halved = float(
            query.astype(np.float16).astype(np.float64)
            @ chunk.astype(np.float16).astype(np.float64)
        )
        assert abs(exact - halved) < epsilon(query) < 2e-3
