"""A namespace knows what its vectors were made by, and takes no others."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from indexd.api.parse import document_from
from indexd.api.structs import UpsertIn
from indexd.db.pool import Database
from indexd.errors import ModelMismatch
from indexd.settings import Settings
from indexd.store.writing import upsert as writing
from indexd.store.writing.vector_space import vector_spaces
from tests.conftest import Client, Sql, document
from tests.fake_embedders import Fake, running, vector
from tests.test_embedders import bulk, client, search, served, texts_document

__all__ = ["client"]

MODELS = "SELECT embedding_model, embedding_revision FROM indexd.namespaces"
NEW = "ffffffffffff"


@pytest.fixture
def fake() -> Any:
    with running("ollama") as opened:
        yield opened


async def upsert(client: Client, body: dict[str, Any]) -> Any:
    response = await client.post("/index/upsert", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def refused(client: Client, route: str, body: dict[str, Any], *named: str) -> None:
    response = await client.post(route, json=body)
    assert response.status_code == 400, response.text
    assert response.json()["code"] == "embedding_model_mismatch"
    for name in named:
        assert name in response.json()["error"]


async def test_the_first_text_names_the_model(client: Client, sql: Sql) -> None:
    await upsert(client, texts_document("a", "one"))
    assert sql(MODELS) == [("all-minilm", "1b226e2802db")]


async def test_vectors_that_nobody_named_bind_a_namespace_to_no_model(
    client: Client, sql: Sql
) -> None:
    await upsert(client, document("a", vector("x")))
    assert sql(MODELS) == [(None, None)]
    assert (await search(client, query="x"))["results"][0]["score"] == pytest.approx(1)
    await upsert(client, texts_document("b", "y"))
    assert sql(MODELS) == [("all-minilm", "1b226e2802db")]
    await upsert(client, document("c", vector("z")))


async def test_clients_may_name_their_model_and_no_other_comes_in(client: Client, sql: Sql) -> None:
    await upsert(client, document("a", vector("x"), embedding_model="mine"))
    assert sql(MODELS) == [("mine", None)]
    await upsert(client, document("b", vector("x"), embedding_model="mine"))
    await upsert(client, document("c", vector("x")))
    other = document("a", vector("y"), embedding_model="yours")
    await refused(client, "/index/upsert", other, "mine", "yours")
    for body in (texts_document("d", "text"), texts_document("a", "text")):
        await refused(client, "/index/upsert", body, "mine", "all-minilm@1b226e2802db")
    query = {"namespace": "notes", "query": "x"}
    await refused(client, "/index/search", query, "mine", "all-minilm@1b226e2802db")
    await refused(
        client, "/index/search", query | {"mode": "hybrid"}, "mine", "all-minilm@1b226e2802db"
    )
    named = {"namespace": "notes", "embedding": vector("x"), "embedding_model": "yours"}
    await refused(client, "/index/search", named, "mine", "yours")
    assert (await search(client, embedding=vector("x"), embedding_model="mine"))["results"]
    # Searches that succeed are answered in one round trip from then on, and are still held to it.
    await refused(client, "/index/search", named, "mine", "yours")
    assert sql("SELECT count(*) FROM indexd.documents") == [(3,)]


async def test_a_named_model_must_be_the_embedders_where_this_has_to_embed(
    client: Client, sql: Sql
) -> None:
    body = texts_document("a", "text", embedding_model="mine")
    await refused(client, "/index/upsert", body, "mine", "all-minilm@1b226e2802db")
    assert sql("SELECT count(*) FROM indexd.documents") == [(0,)]
    await upsert(client, body | {"embedding_model": "all-minilm"})


async def test_in_a_bulk_only_the_lines_of_another_model_fail(client: Client, sql: Sql) -> None:
    answer = await bulk(
        client,
        document("a", vector("x")),
        document("b", vector("x"), embedding_model="mine"),
        document("c", vector("x"), embedding_model="yours"),
        texts_document("d", "text"),
        document("e", vector("x"), namespace="other", embedding_model="yours"),
    )
    assert answer["accepted"] == 3
    assert [(error["line"], error["code"]) for error in answer["errors"]] == [
        (3, "embedding_model_mismatch"),
        (4, "embedding_model_mismatch"),
    ]
    assert sql(f"{MODELS} ORDER BY namespace") == [("mine", None), ("yours", None)]


async def test_other_weights_under_the_same_name_are_another_model(
    fake: Fake, common_url: str, sql: Sql
) -> None:
    async with served(fake, common_url) as client:
        await upsert(client, texts_document("a", "one"))
    fake.digest = "sha256:" + NEW + fake.digest
    async with served(fake, common_url) as client:
        named = ("all-minilm@1b226e2802db", f"all-minilm@{NEW}")
        await refused(client, "/index/upsert", texts_document("b", "two"), *named)
        await refused(client, "/index/search", {"namespace": "notes", "query": "one"}, *named)
        # By words and by vectors the namespace is as it was.
        assert (await search(client, query="one", mode="lexical"))["results"]
        assert (await search(client, embedding=vector("one")))["results"]
        await upsert(client, texts_document("b", "two", namespace="another"))


@pytest.mark.slow
async def test_a_model_that_is_replaced_while_the_service_runs_is_noticed(
    client: Client, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upsert(client, texts_document("a", "one"))
    fake.digest = NEW
    # A failure is followed by a look, which asks for the model as well.
    fake.become("error")
    await client.post("/index/upsert", json=texts_document("b", "two"))
    fake.become("works")
    for _ in range(100):
        if NEW in (await client.get("/readyz")).text:
            break
        await asyncio.sleep(0.1)
    await refused(client, "/index/upsert", texts_document("b", "two"), NEW)


async def test_an_empty_namespace_is_free_for_another_model(client: Client, sql: Sql) -> None:
    await upsert(client, document("a", [1, 0], embedding_model="mine"))
    await client.post("/index/delete", json={"doc_id": "a", "namespace": "notes"})
    await upsert(client, texts_document("a", "text"))
    assert sql(MODELS) == [("all-minilm", "1b226e2802db")]
    await client.post("/index/delete", json={"doc_id": "a", "namespace": "notes"})
    await upsert(client, document("a", vector("x")))
    assert sql(MODELS) == [(None, None)]


async def test_a_client_that_names_the_model_leaves_its_revision_to_whoever_knows_it(
    client: Client, sql: Sql
) -> None:
    await upsert(client, document("a", vector("x"), embedding_model="all-minilm"))
    await upsert(client, texts_document("b", "text"))
    assert sql(MODELS) == [("all-minilm", "1b226e2802db")]
    await upsert(client, document("c", vector("x"), embedding_model="all-minilm"))


async def test_a_vector_of_unknown_origin_is_not_kept_for_a_text(
    client: Client, fake: Fake
) -> None:
    await upsert(client, document("a", vector("something else"), texts=["one"]))
    await upsert(client, texts_document("a", "one"))
    assert fake.texts == ["one"]
    [result] = (await search(client, query="one"))["results"]
    assert result["score"] == pytest.approx(1)


async def test_of_first_writers_with_two_models_one_kind_is_refused(settings: Settings) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    made = [f"model-{n % 2}" for n in range(16)]
    async with Database(str(settings.database_url), settings) as database:

        async def write(n: int) -> bool:
            sent = msgspec.convert(
                document(f"d{n}", vector("x"), embedding_model=made[n]), UpsertIn
            )
            try:
                await database.write(lambda c: writing.upsert(c, document_from(sent), at=at))
            except ModelMismatch:
                return False
            return True

        taken = await asyncio.gather(*(write(n) for n in range(16)))
        found = await database.read(lambda c: vector_spaces(c, ["notes"]))
    assert found["notes"].model is not None
    assert taken == [name == found["notes"].model.name for name in made]
    assert sum(taken) == 8


@pytest.mark.parametrize("name", ["", " ", "x" * 600])
async def test_a_model_without_a_name_is_a_400(client: Client, name: str) -> None:
    response = await client.post("/index/upsert", json=document("a", [1, 0], embedding_model=name))
    assert response.status_code == 400
    assert "embedding_model" in response.json()["error"]
