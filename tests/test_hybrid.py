"""Mode hybrid: two rankings under decay, fused; against brute force, with and without an index."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from pgvector.psycopg import register_vector_async

from indexd.db.pool import Connection
from indexd.db.sessions import Session, parameters
from indexd.store import indexes
from indexd.store import search as store
from indexd.store.documents import Chunk, Document
from indexd.store.filters import Filters
from indexd.store.indexes import Rules
from indexd.store.search import Found, NamespaceMemory, Query, age_histogram, plan, terms
from indexd.store.search.costs import Tuning
from indexd.store.search.plan import POOL
from indexd.store.writing import upsert
from indexd.vectors import normalised
from tests.conftest import Client, Sql, document

pytestmark = pytest.mark.slow

AT = datetime(2026, 6, 1, tzinfo=UTC)
DAY = 86_400.0
DIMENSION = 6
CHUNKS = 900
VOCABULARY = ["backup", "server", "apple", "river", "stone", "cloud", "forest", "engine", "piano"]


class Corpus:
    """More chunks than an arm holds, of which more than an arm holds have the words."""

    def __init__(self, rng: np.random.Generator) -> None:
        vectors = rng.normal(size=(CHUNKS, DIMENSION)).astype(np.float32)
        self.vectors = np.array([normalised(vector) for vector in vectors])
        self.ages = rng.random(CHUNKS) * 400 * DAY
        self.texts = [
            " ".join(rng.choice(VOCABULARY, size=rng.integers(2, 12))) for _ in range(CHUNKS)
        ]

    def documents(self) -> list[Document]:
        return [
            Document(
                "notes",
                f"d{n:04}",
                (Chunk("c", self.texts[n], {}, (f"t{n % 2}",), None, vector),),
                {},
                ingested_at=AT - timedelta(seconds=float(self.ages[n])),
            )
            for n, vector in enumerate(self.vectors)
        ]

    async def expected(
        self, connection: Connection, query: Query, half_life: float | None, tag: str | None
    ) -> list[tuple[str, float]]:
        """Brute force over all chunks; only the impacts of words are PostgreSQL's."""
        decay = 0.5 ** (self.ages / half_life) if half_life else np.ones(CHUNKS)
        asked = await terms.asked(connection, "notes", query.text)
        cursor = await connection.execute(
            "SELECT doc_id, -(lex <#> %s::sparsevec) FROM indexd.chunk_fields", [asked.vector]
        )
        said = {int(doc_id[1:]): rank for doc_id, rank in await cursor.fetchall() if rank > 0}
        near = self.vectors @ query.vector if query.vector is not None else np.zeros(CHUNKS)
        kept = [n for n in range(CHUNKS) if tag is None or f"t{n % 2}" == tag]
        arms = [
            sorted(kept, key=lambda n: (-near[n] * decay[n], n))[:POOL],
            sorted(set(kept) & set(said), key=lambda n: (-said[n] * decay[n], n))[:POOL],
        ]
        assert all(len(arm) == POOL for arm in arms)
        fused = dict.fromkeys([*arms[0], *arms[1]], 0.0)
        for arm in arms:
            for place, n in enumerate(arm, start=1):
                fused[n] += 61 / (60 + place) / 2
        best = sorted(fused, key=lambda n: (-fused[n], n))[: query.k]
        return [(f"d{n:04}", fused[n]) for n in best]


@pytest.fixture
async def connection(url: str) -> AsyncIterator[Connection]:
    async with await Session.connect(url, autocommit=True, **parameters("tests")) as opened:
        await register_vector_async(opened)
        await opened.execute("SET plan_cache_mode = force_custom_plan")
        yield opened


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("half_life", [None, DAY, 30 * DAY, 3650 * DAY])
@pytest.mark.parametrize("tag", [None, "t1"])
async def test_the_answer_is_brute_forces(
    connection: Connection,
    rng: np.random.Generator,
    indexed: bool,
    half_life: float | None,
    tag: str | None,
) -> None:
    corpus = Corpus(rng)
    async with connection.transaction():
        await upsert.upsert_many(connection, corpus.documents(), at=AT)
    await connection.execute(
        "INSERT INTO indexd.retention_policies (namespace, half_life_seconds, policy_hash, source)"
        " VALUES ('notes', %s, '', '')",
        (half_life,),
    )
    if indexed:
        [space] = await indexes.look(connection)
        await indexes.build(connection, space, Rules(1, 100, 0.2, 48, 400))
        await connection.execute("ANALYZE indexd.chunks")
        await connection.execute("SET enable_seqscan = off")
        await age_histogram.count(connection, "notes", at=AT)
    filters = Filters(tags=[tag] if tag else None)
    for _ in range(5):
        vector = normalised(rng.normal(size=DIMENSION).astype(np.float32))
        words = " ".join(rng.choice(VOCABULARY, size=1))
        wanted = Query(
            namespace="notes",
            mode="hybrid",
            k=20,
            at=AT,
            filters=filters,
            text=words,
            vector=vector,
        )
        found = await snapshot(connection, wanted)
        expected = await corpus.expected(connection, wanted, half_life, tag)
        assert [hit.doc_id for hit in found.hits] == [doc_id for doc_id, _ in expected]
        assert [hit.score for hit in found.hits] == pytest.approx([score for _, score in expected])


async def snapshot(connection: Connection, wanted: Query) -> Found:
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return await store.in_snapshot(connection, NamespaceMemory(), wanted, Tuning())


async def hybrid_search(client: Client, query: str, **body: Any) -> Any:
    sent = {"namespace": "notes", "query": query, "mode": "hybrid", **body}
    response = await client.post("/index/search", json=sent)
    assert response.status_code == 200, response.text
    assert response.json()["mode"] == "hybrid"
    return response.json()["results"]


async def test_the_rationale_says_which_arm_found_a_hit(client: Client, sql: Sql) -> None:
    for doc_id, vector, text in (
        ("both", [1, 0], "the backup policy"),
        ("near", [0.9, 0.1], "another thing"),
        ("said", [-1, 0], "a policy for every backup"),
    ):
        await client.post("/index/upsert", json=document(doc_id, vector, texts=[text]))
    results = await hybrid_search(client, "backup policy", embedding=[1, 0], include_weights=True)
    found = {result["doc_id"]: result for result in results}
    assert found["both"]["rationale"] == [
        "Vector cosine: 1.00",
        "Text match: backup (50%), policy (50%)",
    ]
    assert found["near"]["rationale"] == ["Vector cosine: 0.99"]
    assert "Text match: backup (50%), policy (50%)" in found["said"]["rationale"]
    # First in both arms is as good as can be.
    assert results[0]["doc_id"] == "both"
    assert results[0]["score"] == results[0]["weights"]["similarity"] == pytest.approx(1)
    assert all(0 < result["score"] <= 1 for result in results)


async def test_what_only_the_words_find_is_not_given_a_cosine(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "POOL", 1)
    await client.post("/index/upsert", json=document("near", [1, 0], texts=["one thing"]))
    await client.post("/index/upsert", json=document("said", [0, 1], texts=["another word"]))
    results = await hybrid_search(client, "word", embedding=[1, 0])
    assert {result["doc_id"]: result["rationale"] for result in results} == {
        "near": ["Vector cosine: 1.00"],
        "said": ["Text match: word (100%)"],
    }


async def test_decay_counts_once(client: Client) -> None:
    """Both rankings are under decay; what comes first in both has the best score."""
    old = {"ingested_at": "2020-01-01T00:00:00Z", "half_life_seconds": 365 * DAY}
    await client.post("/index/upsert", json=document("old", [1, 0], texts=["a backup"], **old))
    await client.post("/index/upsert", json=document("new", [0.6, 0.8], texts=["some backup"]))
    results = await hybrid_search(client, "backup", embedding=[1, 0], include_weights=True)
    assert [result["doc_id"] for result in results] == ["new", "old"]
    assert results[0]["score"] == results[0]["weights"]["similarity"] == pytest.approx(1)
    assert results[1]["score"] == pytest.approx(61 / 62)
    assert 0 < results[1]["weights"]["decay"] < 0.1
    assert results[1]["rationale"][-1].startswith("Decay: ")


async def test_without_a_word_that_is_there_the_vector_alone_ranks(client: Client) -> None:
    for doc_id, vector in (("a", [1, 0]), ("b", [1, 1])):
        await client.post("/index/upsert", json=document(doc_id, vector, texts=["text"]))
    for query in ("nowhere", "the", "  ' & | !"):
        results = await hybrid_search(client, query, embedding=[1, 0])
        assert [result["doc_id"] for result in results] == ["a", "b"]


async def test_an_unknown_namespace_has_no_hits(client: Client) -> None:
    assert await hybrid_search(client, "word", namespace="nowhere", embedding=[1, 0]) == []


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"query": "word"}, "no embedder"),
        ({"embedding": [1, 0]}, "query text"),
        ({"embedding": [1, 0], "query": {"text": " "}}, "query text"),
        ({}, "embedding or a query text"),
    ],
)
async def test_hybrid_needs_words_and_a_vector(
    client: Client, body: dict[str, Any], named: str
) -> None:
    response = await client.post("/index/search", json={"mode": "hybrid", **body})
    assert response.status_code == 400
    assert response.json()["code"] == "missing_query"
    assert named in response.json()["error"]


async def test_auto_with_words_and_a_vector_is_vector(client: Client) -> None:
    await client.post("/index/upsert", json=document("a", [1, 0], texts=["word"]))
    response = await client.post(
        "/index/search", json={"namespace": "notes", "query": "word", "embedding": [1, 1]}
    )
    assert response.json()["mode"] == "vector"
    assert response.json()["results"][0]["score"] == pytest.approx(0.5**0.5)
