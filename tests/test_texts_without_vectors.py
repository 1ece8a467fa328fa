"""Texts stored without a vector: found by words, passed over by vectors, filled in later."""

from typing import Any

import psycopg
import pytest

from indexd import reembed
from tests.conftest import Client
from tests.fake_embedders import DIMENSION, Fake, running, vector
from tests.test_embedders import served
from tests.test_reembed import tools

pytestmark = pytest.mark.slow

NOTES = "notes"


@pytest.fixture
def fake() -> Any:
    with running("ollama") as opened:
        yield opened


def texts(doc_id: str, *chunks: Any, **rest: Any) -> dict[str, Any]:
    """A document of texts, and of chunks as they are, that is not to be embedded."""
    sent = [{"text": one} if isinstance(one, str) else one for one in chunks]
    return {"doc_id": doc_id, "namespace": NOTES, "chunks": sent, "embed": False, **rest}


async def store(client: Client, *documents: dict[str, Any]) -> list[Any]:
    answers = []
    for one in documents:
        response = await client.post("/index/upsert", json=one)
        assert response.status_code == 200, response.text
        answers.append(response.json())
    return answers


async def search(client: Client, **body: Any) -> Any:
    response = await client.post("/index/search", json={"namespace": NOTES, **body})
    assert response.status_code == 200, response.text
    return response.json()


async def dimension_of(client: Client) -> int | None:
    details = (await client.get("/index/stats")).json()["details"]
    found: int | None = details[NOTES]["dimension"]
    return found


async def test_a_text_without_a_vector_is_stored_and_found_by_its_words(own_client: Client) -> None:
    refused = await own_client.post(
        "/index/upsert", json=texts("a", "red apples") | {"embed": True}
    )
    assert refused.status_code == 400
    assert "embed: false" in refused.json()["hint"]
    [answer] = await store(own_client, texts("a", "red apples"))
    assert (answer["chunks"], answer["version"]) == (1, 1)
    assert await dimension_of(own_client) is None
    found = await search(own_client, query="apples", include_vectors=True)
    assert found["mode"] == "lexical"
    [hit] = found["results"]
    assert (hit["doc_id"], hit["embedding"]) == ("a", None)
    body = {"namespace": NOTES, "doc_ids": ["a"], "vectors": True}
    [document] = (await own_client.post("/index/documents/get", json=body)).json()["documents"]
    assert document["chunks"][0]["embedding"] is None


async def test_an_empty_text_without_a_vector_is_refused(own_client: Client) -> None:
    response = await own_client.post("/index/upsert", json=texts("a", " "))
    assert response.status_code == 400
    assert response.json()["code"] == "invalid_embedding"


async def test_in_a_namespace_without_vectors_words_alone_rank(own_client: Client) -> None:
    await store(own_client, texts("a", "red apples"), texts("b", "green pears"))
    by_vector = await search(own_client, embedding=[1, 0])
    assert (by_vector["mode"], by_vector["results"]) == ("vector", [])
    named = await search(own_client, query="pears", embedding=[1, 0], mode="vector")
    assert (named["mode"], named["results"]) == ("vector", [])
    both = await search(own_client, query="pears", embedding=[1, 0])
    assert (both["mode"], [hit["doc_id"] for hit in both["results"]]) == ("lexical", ["b"])
    hybrid = await search(own_client, query="pears", embedding=[1, 0], mode="hybrid")
    assert (hybrid["mode"], [hit["doc_id"] for hit in hybrid["results"]]) == ("hybrid", ["b"])


async def test_the_first_vector_fixes_the_dimension_and_texts_do_not(own_client: Client) -> None:
    await store(own_client, texts("a", "red apples", embedding_model="some model"))
    mixed = texts("b", "green pears", {"text": "plums", "embedding": [1, 0, 0]})
    await store(own_client, mixed | {"embedding_model": "another model"})
    assert await dimension_of(own_client) == 3
    two = texts("c", {"text": "figs", "embedding": [1, 0]})
    refused = await own_client.post("/index/upsert", json=two)
    assert refused.json()["code"] == "dimension_mismatch"
    for doc_id in ("a", "b"):
        await own_client.post("/index/delete", json={"namespace": NOTES, "doc_id": doc_id})
    await store(own_client, texts("a", "red apples"))
    assert await dimension_of(own_client) is None
    await store(own_client, two)
    assert await dimension_of(own_client) == 2


@pytest.mark.parametrize("half_life", [None, 3600])
@pytest.mark.parametrize("more", [{}, {"filters": {"tags": ["fruit"]}}, {"per_document": True}])
async def test_vectors_pass_over_chunks_without_one(
    own_client: Client, half_life: int | None, more: dict[str, Any]
) -> None:
    meta = {"tags": ["fruit"]}
    for n in range(6):
        chunks = [
            {"text": "apples", "embedding": [1, n], "meta": meta},
            {"text": "p", "meta": meta},
        ]
        await store(own_client, texts(f"d{n}", *chunks, half_life_seconds=half_life))
    await store(own_client, *(texts(f"t{n}", {"text": "apples", "meta": meta}) for n in range(6)))
    for _ in range(2):  # the second search is one statement
        found = await search(own_client, embedding=[1, 0], k=100, **more)
        assert [hit["doc_id"] for hit in found["results"]] == [f"d{n}" for n in range(6)]
    body = {"namespace": NOTES, "doc_id": "d0"}
    near = (await own_client.post("/index/related", json=body)).json()["results"]
    assert [hit["doc_id"] for hit in near] == [f"d{n}" for n in range(1, 6)]


async def test_nothing_is_related_to_a_document_without_vectors(own_client: Client) -> None:
    await store(own_client, texts("a", "apples"), texts("b", {"text": "b", "embedding": [1, 0]}))
    known = await own_client.post("/index/related", json={"namespace": NOTES, "doc_id": "a"})
    assert (known.status_code, known.json()["results"]) == (200, [])
    unknown = await own_client.post("/index/related", json={"namespace": NOTES, "doc_id": "x"})
    assert unknown.status_code == 404


async def test_the_same_text_is_unchanged_and_with_a_vector_it_is_a_change(
    fake: Fake, url: str
) -> None:
    async with served(fake, url) as client:
        document = texts("a", "red apples")
        answers = await store(client, document, document, document | {"embed": True})
        assert [one["unchanged"] for one in answers] == [False, True, False]
        assert await dimension_of(client) == DIMENSION
        [again] = await store(client, document)
        assert again["unchanged"] is False


async def test_auto_asks_no_embedder_where_no_vector_is_stored(fake: Fake, url: str) -> None:
    async with served(fake, url) as client:
        await store(client, texts("a", "red apples"))
        found = await search(client, query="apples")
        assert (found["mode"], len(found["results"])) == ("lexical", 1)
        assert not fake.texts


@pytest.mark.parametrize("with_vectors", [False, True])
async def test_reembed_fills_in_what_has_no_vector_and_nothing_else(
    fake: Fake, url: str, clone: psycopg.Connection[Any], with_vectors: bool
) -> None:
    clone.autocommit = True
    async with served(fake, url) as client:
        if with_vectors:
            await store(client, texts("old", "green pears") | {"embed": True})
        await store(client, texts("a", "red apples"), texts("b", "plums"))
        fake.texts.clear()
        known = "SELECT doc_id, version, ingested_at, digest FROM indexd.documents ORDER BY 1"
        before = clone.execute(known).fetchall()
        async with tools(fake, url) as (connection, embedder, settings):
            outcome = await reembed.run(connection, embedder, settings, NOTES, lambda *_: None)
        assert outcome.chunks == 2
        assert sorted(fake.texts) == ["plums", "red apples"]
        assert clone.execute(known).fetchall() == before
        assert await dimension_of(client) == DIMENSION
        [first, *_] = (await search(client, embedding=vector("plums")))["results"]
        assert (first["doc_id"], first["score"]) == ("b", pytest.approx(1))
        [again] = await store(client, texts("a", "red apples"))
        assert again["unchanged"] is True
