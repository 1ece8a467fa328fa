"""What a search can be asked for beside its query: pages, thresholds, times, vectors, quiet."""

from typing import Any

import pytest

from tests.conftest import Client, Sql, document, service_of

LONG_AGO = "2020-01-01T00:00:00Z"
LATER = "2024-01-01T00:00:00Z"


async def search(client: Client, **more: Any) -> list[dict[str, Any]]:
    answer = await client.post(
        "/index/search", json={"namespace": "notes", "embedding": [1, 0], **more}
    )
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def ids(results: list[dict[str, Any]]) -> list[str]:
    return [result["doc_id"] for result in results]


def keys(results: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(result["doc_id"], result["chunk_id"]) for result in results]


@pytest.fixture
async def filled(client: Client) -> Client:
    """Five documents of two chunks each; the n-th is the n-th nearest to [1, 0]."""
    for n, angle in enumerate((0.0, 0.2, 0.5, 1.0, 2.0)):
        body = document(
            f"d{n}",
            [1, angle],
            [1, 5 + n],
            texts=[f"word number {n}", "word and another word"],
        )
        await client.post("/index/upsert", json=body | {"meta": {"n": n}})
    return client


@pytest.mark.parametrize("mode", ["vector", "lexical", "hybrid"])
async def test_pages_are_the_ranking_in_parts(filled: Client, mode: str) -> None:
    asked = {"query": "word", "mode": mode}
    whole = await search(filled, **asked, k=10)
    assert len(whole) == 10
    pages = [
        hit
        for offset in (0, 3, 6, 9, 12)
        for hit in await search(filled, **asked, k=3, offset=offset)
    ]
    assert keys(pages) == keys(whole)


@pytest.mark.parametrize("mode", ["vector", "lexical", "hybrid"])
async def test_per_document_each_is_answered_once_and_counted_once(
    filled: Client, mode: str
) -> None:
    asked = {"query": "word", "mode": mode, "per_document": True}
    whole = await search(filled, **asked, k=10)
    assert sorted(ids(whole)) == ["d0", "d1", "d2", "d3", "d4"]
    assert ids(await search(filled, **asked, k=2, offset=2)) == ids(whole)[2:4]
    if mode == "vector":
        assert [hit["chunk_id"] for hit in whole] == [f"d{n}#0" for n in range(5)]


async def test_an_offset_ends_at_a_thousand(client: Client) -> None:
    body = {"embedding": [1, 0], "k": 10}
    assert (await client.post("/index/search", json=body | {"offset": 990})).status_code == 200
    answer = await client.post("/index/search", json=body | {"offset": 991})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")
    for wrong in (-1, 1.5, "2"):
        answer = await client.post("/index/search", json=body | {"offset": wrong})
        assert answer.status_code == 400


async def test_what_is_less_similar_is_left_out_before_the_k_are_taken(filled: Client) -> None:
    near = {"half_life_seconds": 86_400, "ingested_at": LONG_AGO}
    await filled.post("/index/upsert", json=document("faded", [1, 0]) | near)
    assert ids(await search(filled, k=1, min_similarity=0.95)) == ["d0"]
    assert ids(await search(filled, k=9, min_similarity=0.95)) == ["d0", "d1", "faded"]
    assert ids(await search(filled, k=9, min_similarity=1.1)) == []


async def test_what_scores_lower_is_left_out(filled: Client) -> None:
    near = {"half_life_seconds": 86_400, "ingested_at": LONG_AGO}
    await filled.post("/index/upsert", json=document("faded", [1, 0]) | near)
    assert ids(await search(filled, k=9, min_score=0.95)) == ["d0", "d1"]
    answer = await filled.post(
        "/index/search",
        json={"embedding": [1, 0], "query": "word", "mode": "hybrid", "min_score": 0.1},
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")


@pytest.mark.parametrize("field", ["min_similarity", "min_score"])
async def test_thresholds_are_finite_numbers(client: Client, field: str) -> None:
    body = f'{{"namespace": "notes", "embedding": [1, 0], "{field}": 1e999}}'
    answer = await client.post(
        "/index/search", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400


async def test_hits_by_words_alone_stay_in_hybrid(filled: Client) -> None:
    await filled.post("/index/upsert", json=document("far", [-1, 0], texts=["unicorn"]))
    asked = {"query": "unicorn", "mode": "hybrid", "min_similarity": 0.99}
    assert ids(await search(filled, **asked)) == ["d0", "far"]


async def test_at_moves_the_clock_of_decay_and_hides_what_came_later(client: Client) -> None:
    fading = {"half_life_seconds": 365 * 86_400}
    old, new = document("old", [1, 0]) | fading, document("new", [1, 0]) | fading
    await client.post("/index/upsert", json=old | {"ingested_at": LONG_AGO})
    await client.post("/index/upsert", json=new | {"ingested_at": LATER})
    assert ids(await search(client)) == ["new", "old"]
    [only] = await search(client, at="2021-01-01T00:00:00+00:00")
    assert only["doc_id"] == "old"
    assert only["score"] == pytest.approx(0.5, abs=0.01)
    assert ids(await search(client, at=LONG_AGO)) == ["old"]
    assert ids(await search(client, at="2019-12-31T23:59:59Z")) == []
    [first, second] = await search(client, at="2025-01-01T00:00:00Z")
    assert (first["doc_id"], first["score"]) == ("new", pytest.approx(0.5, abs=0.01))
    assert second["score"] == pytest.approx(1 / 32, abs=0.01)
    far = await search(client, at="2100-01-01T00:00:00Z")
    assert ids(far) == ["new", "old"]


async def test_the_answer_says_at_which_time_it_is(client: Client) -> None:
    body = {"namespace": "notes", "embedding": [1, 0]}
    now = (await client.post("/index/search", json=body)).json()["at"]
    again = (await client.post("/index/search", json=body | {"at": now})).json()["at"]
    assert again == now
    shifted = {"at": "2021-01-01T02:00:00+02:00"}
    answer = await client.post("/index/search", json=body | shifted)
    assert answer.json()["at"] == "2021-01-01T00:00:00Z"
    for wrong in ("2021-01-01", "yesterday", 5):
        assert (await client.post("/index/search", json=body | {"at": wrong})).status_code == 400


@pytest.mark.parametrize("mode", ["vector", "lexical", "hybrid"])
async def test_hits_carry_their_vectors_when_asked(filled: Client, mode: str) -> None:
    found = await search(filled, query="number", mode=mode, include_vectors=True, k=3)
    assert len(found) == 3
    for hit in found:
        assert sum(x * x for x in hit["embedding"]) == pytest.approx(1, abs=1e-6)
    assert "embedding" not in (await search(filled))[0]


async def test_hits_carry_the_documents_meta(filled: Client) -> None:
    assert [hit["document_meta"] for hit in await search(filled, k=2)] == [{"n": 0}, {"n": 1}]


@pytest.mark.parametrize("asked", [{"quiet": True}, {"at": "2030-01-01T00:00:00Z"}])
async def test_a_quiet_search_counts_for_nothing(
    client: Client, sql: Sql, asked: dict[str, Any]
) -> None:
    await client.post("/index/upsert", json=document("d", [1, 0]))
    sql(
        "INSERT INTO indexd.retention_policies (namespace, semantic, policy_hash, source) "
        """VALUES ('notes', '{"min_score": 0.9}', '', '')"""
    )
    await search(client, **asked)
    assert await exposed(client, sql) == []
    await search(client)
    assert await exposed(client, sql) == ["d"]


async def exposed(client: Client, sql: Sql) -> list[str]:
    """The documents that searches were counted for."""
    service = service_of(client.app)
    await client.within(service.exposures.flush(service.database, service.now()))
    return [doc_id for (doc_id,) in sql("SELECT doc_id FROM indexd.relevance ORDER BY doc_id")]
