"""BM25 under decay: against brute force, by its statistics, on public collections."""

import gzip
import json
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from statistics import mean
from typing import Any

import numpy as np
import pytest
from pgvector.psycopg import register_vector_async

from indexd.db.pool import Connection
from indexd.db.sessions import Session, parameters
from indexd.store import search as store
from indexd.store.documents import Chunk, Document
from indexd.store.filters import Filters
from indexd.store.search import Found, NamespaceMemory, Query, lexical, term_counts, terms
from indexd.store.search.costs import Tuning
from indexd.store.writing import upsert
from tests.conftest import SHARED

pytestmark = pytest.mark.slow

AT = datetime(2026, 6, 1, tzinfo=UTC)
DAY = 86_400.0
CHUNKS = 2_500
WORDS = 400
VECTOR = np.ones(1, dtype=np.float32)


@pytest.fixture
async def connection(url: str) -> AsyncIterator[Connection]:
    async with await Session.connect(url, autocommit=True, **parameters("tests")) as opened:
        await register_vector_async(opened)
        await opened.execute("SET plan_cache_mode = force_custom_plan")
        yield opened


async def written(connection: Connection, documents: list[Document]) -> None:
    for first in range(0, len(documents), 500):
        async with connection.transaction():
            await upsert.upsert_many(connection, documents[first : first + 500], at=AT)


async def searched(connection: Connection, text: str, k: int = 10, **more: Any) -> Found:
    given: dict[str, Any] = {"namespace": "notes", "mode": "lexical", "k": k, "at": AT}
    query = Query(**given | {"text": text} | more)
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return await store.in_snapshot(connection, NamespaceMemory(), query, Tuning())


def word(n: int) -> str:
    """A word that has one stem of its own."""
    return "q" + "".join("bcdfghjklm"[int(digit)] for digit in f"{n:03}")


def natural(rng: np.random.Generator) -> list[Document]:
    """Few words that are in many texts, many that are in few; texts that are alike tie."""
    share = 1 / np.arange(1, WORDS + 1)
    share /= share.sum()
    documents = []
    for n in range(CHUNKS):
        said = rng.choice(WORDS, size=rng.integers(2, 40), p=share)
        text = " ".join(word(one) for one in said) if n % 50 else "qbbb qbbc"
        chunk = Chunk("c", text, {}, (f"t{n % 3}",), None, VECTOR)
        ingested_at = AT - timedelta(seconds=float(rng.random() * 400 * DAY))
        half_life = 20 * DAY if n % 7 == 0 else None
        documents.append(
            Document(
                "notes",
                f"d{n % 1250:04}/{n}",
                (chunk,),
                {},
                half_life_seconds=half_life,
                ingested_at=AT if n % 50 == 0 else ingested_at,
            )
        )
    return documents


async def brute_force(
    connection: Connection, text: str, half_life: float | None, tag: str | None, k: int
) -> list[str]:
    """Every chunk scored in Python, by the weights that are stored."""
    asked = await terms.asked(connection, "notes", text)
    cursor = await connection.execute(
        "SELECT doc_id, -(lex <#> %s::sparsevec), ingested_at, half_life_seconds, tags"
        "  FROM indexd.chunk_fields",
        [asked.vector],
    )
    scored = []
    for doc_id, similarity, ingested_at, own, tags in await cursor.fetchall():
        if similarity > 0 and (tag is None or tag in tags):
            life = own or half_life
            age = (AT - ingested_at).total_seconds()
            scored.append((-similarity * (0.5 ** (age / life) if life else 1.0), doc_id))
    return [doc_id for _, doc_id in sorted(scored)[:k]]


@pytest.mark.parametrize("half_life", [None, DAY, 30 * DAY, 3650 * DAY])
@pytest.mark.parametrize("tag", [None, "t1"])
async def test_the_answer_is_brute_forces(
    connection: Connection,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    half_life: float | None,
    tag: str | None,
) -> None:
    monkeypatch.setattr(lexical, "FIRST_ROUND", 30)
    monkeypatch.setattr(lexical, "SCANNED", 0)
    rounds: list[bool] = []
    proved = lexical.proved

    def noted(*about: Any) -> bool:
        rounds.append(proved(*about))
        return rounds[-1]

    monkeypatch.setattr(lexical, "proved", noted)
    await written(connection, natural(rng))
    await connection.execute(
        "INSERT INTO indexd.retention_policies (namespace, half_life_seconds, policy_hash, source)"
        " VALUES ('notes', %s, '', '')",
        (half_life,),
    )
    for stored in (False, True):
        if stored:
            await term_counts.count(connection, "notes", at=AT)
        for _ in range(15):
            asked = " ".join(word(int(n)) for n in rng.integers(0, WORDS, size=rng.integers(1, 8)))
            expected = await brute_force(connection, asked, half_life, tag, 10)
            found = await searched(connection, asked, filters=Filters(tags=[tag] if tag else None))
            assert [hit.doc_id for hit in found.hits] == expected
            assert all(0 < hit.similarity < 1 for hit in found.hits)
    assert False in rounds
    assert True in rounds


async def test_ties_go_by_document_and_chunk_and_pages_fit(connection: Connection) -> None:
    chunks = tuple(Chunk(one, "alike", {}, (), None, VECTOR) for one in ("z", "a", "m"))
    await written(connection, [Document("notes", one, chunks, {}, ingested_at=AT) for one in "ba"])
    found = await searched(connection, "alike", k=4)
    ids = [(hit.doc_id, hit.chunk_id) for hit in found.hits]
    assert ids == [("a", "a"), ("a", "m"), ("a", "z"), ("b", "a")]
    later = await searched(connection, "alike", k=6, offset=3)
    assert [(hit.doc_id, hit.chunk_id) for hit in later.hits] == [
        ("b", "a"),
        ("b", "m"),
        ("b", "z"),
    ]
    each = await searched(connection, "alike", k=4, per_document=True)
    assert [(hit.doc_id, hit.chunk_id) for hit in each.hits] == [("a", "a"), ("b", "a")]


async def test_the_similarity_is_the_share_of_the_best_that_the_query_could_get(
    connection: Connection,
) -> None:
    texts = ["qbbb qbbb qccc", "qccc", "qddd qddd qddd qddd"]
    await written(
        connection,
        [
            Document(
                "notes", f"d{n}", (Chunk("c", text, {}, (), None, VECTOR),), {}, ingested_at=AT
            )
            for n, text in enumerate(texts)
        ],
    )
    found = await searched(connection, "qbbb qccc qzzz")
    idf = {"qbbb": math.log(1 + 2.5 / 1.5), "qccc": math.log(1 + 1.5 / 2.5), "": math.log(1 + 7)}
    # A namespace of few texts is weighed against 60 words.
    norm = 1.2 * (0.25 + 0.75 * 3 / 60)
    best = 2.2 * sum(idf.values())
    expected = (idf["qbbb"] * 2 * 2.2 / (2 + norm) + idf["qccc"] * 2.2 / (1 + norm)) / best
    assert found.hits[0].doc_id == "d0"
    assert found.hits[0].similarity == pytest.approx(expected, rel=1e-5)


async def test_only_the_64_weightiest_words_count(connection: Connection) -> None:
    common = " ".join(word(n) for n in range(100))
    texts = [common] * 5 + ["qzzz"]
    await written(
        connection,
        [
            Document(
                "notes", f"d{n}", (Chunk("c", text, {}, (), None, VECTOR),), {}, ingested_at=AT
            )
            for n, text in enumerate(texts)
        ],
    )
    asked = await terms.asked(connection, "notes", f"{common} qzzz")
    assert len(asked.terms) == 64
    assert asked.terms[0].word == "qzzz"


async def test_what_a_program_of_the_release_before_wrote_is_found_and_weighed_later(
    connection: Connection,
) -> None:
    documents = [
        Document("notes", f"d{n}", (Chunk("c", text, {}, (), None, VECTOR),), {}, ingested_at=AT)
        for n, text in enumerate(["qbbb qccc", "qbbb", "qddd"] * 10)
    ]
    await written(connection, documents)
    before = await searched(connection, "qbbb qccc", k=20)
    await connection.execute("UPDATE indexd.chunk_fields SET terms = NULL, lex = NULL")
    meanwhile = await searched(connection, "qbbb qccc", k=20)
    assert {hit.doc_id for hit in meanwhile.hits} == {hit.doc_id for hit in before.hits}
    for due in await term_counts.due(connection):
        await term_counts.keep(connection, due, at=AT)
    after = await searched(connection, "qbbb qccc", k=20)
    assert {hit.doc_id for hit in after.hits} == {hit.doc_id for hit in before.hits}
    assert await term_counts.due(connection) == []


async def test_the_keeper_corrects_the_average_and_counts_when_a_tenth_has_changed(
    connection: Connection, rng: np.random.Generator
) -> None:
    await written(connection, natural(rng))
    await connection.execute("UPDATE indexd.namespaces SET words_average = 500")
    [due] = await term_counts.due(connection)
    await term_counts.keep(connection, due, at=AT)
    cursor = await connection.execute(
        "SELECT words_average, avg(length)::float8, words_counted_at, words_reweighing"
        "  FROM indexd.namespaces JOIN indexd.chunk_fields USING (namespace) GROUP BY namespace"
    )
    [(average, length, counted_at, reweighing)] = await cursor.fetchall()
    assert average == pytest.approx(length)
    assert counted_at == AT
    assert not reweighing
    wrong = await connection.execute(
        "SELECT count(*) FROM indexd.chunk_fields AS fields JOIN indexd.chunks AS chunk"
        " USING (namespace, doc_id, ordinal)"
        " CROSS JOIN LATERAL indexd.weighed(namespace, chunk.text, %s) AS weighed"
        " WHERE weighed.lex IS DISTINCT FROM fields.lex",
        [average],
    )
    assert await wrong.fetchone() == (0,)
    assert await term_counts.due(connection) == []


TARGETS = {"cacm": 0.470, "xquad-de": 0.931, "scifact": 0.669}


def rows(path: Any) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", TARGETS)
async def test_public_collections_are_ranked_as_by_bm25_in_memory(
    connection: Connection, name: str
) -> None:
    folder = SHARED / "ir" / name
    if not folder.exists():
        pytest.skip("the collections are not there")
    await written(
        connection,
        [
            Document(
                "notes",
                row["id"],
                (Chunk("c", row["text"], {}, (), None, VECTOR),),
                {},
                ingested_at=AT,
            )
            for row in rows(folder / "docs.jsonl.gz")
        ],
    )
    for due in await term_counts.due(connection):
        await term_counts.keep(connection, due, at=AT)
    gains = []
    for query in rows(folder / "queries.jsonl.gz"):
        found = (await searched(connection, query["text"])).hits
        relevant = query["relevant"]
        gained = [2 ** relevant.get(hit.doc_id, 0) - 1 for hit in found]
        ideal = sorted((2**grade - 1 for grade in relevant.values()), reverse=True)[:10]
        gains.append(discounted(gained) / discounted(ideal))
    assert mean(gains) >= TARGETS[name]


def discounted(gains: list[int]) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))
