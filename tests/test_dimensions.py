"""A namespace has one dimension, until it is empty."""

import asyncio
import json
from typing import Any

from tests.conftest import Client, document


async def post(client: Client, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    response = await client.post("/index/upsert", json=body)
    return response.status_code, response.json()


async def test_the_message_names_the_chunk_and_both_dimensions(client: Client) -> None:
    await post(client, document("a", [1, 0]))
    body = {"doc_id": "b", "namespace": "notes", "chunks": [{"id": "c2", "embedding": [1, 2, 3]}]}
    status, answer = await post(client, body)
    assert status == 400
    assert answer["error"] == "chunk 'c2' embedding dimensionality mismatch: expected 2, got 3"
    assert answer["code"] == "dimension_mismatch"


async def test_chunks_of_one_document_must_agree(client: Client) -> None:
    status, answer = await post(client, document("a", [1, 0], [1, 2, 3]))
    assert status == 400
    assert answer["error"] == "chunk 'a#1' embedding dimensionality mismatch: expected 2, got 3"


async def test_replacing_the_only_document_with_another_dimension_is_refused(
    client: Client,
) -> None:
    await post(client, document("a", [1, 0]))
    assert (await post(client, document("a", [1, 0, 0])))[0] == 400


async def test_an_empty_namespace_is_free_again(client: Client) -> None:
    await post(client, document("a", [1, 0]))
    await client.post("/index/delete", json={"doc_id": "a", "namespace": "notes"})
    assert (await post(client, document("a", [1, 0, 0])))[0] == 200
    assert (await post(client, document("b", [1, 0])))[0] == 400


async def test_a_query_of_another_dimension_is_refused(client: Client) -> None:
    await post(client, document("a", [1, 0]))
    response = await client.post(
        "/index/search", json={"namespace": "notes", "embedding": [1, 2, 3]}
    )
    assert response.status_code == 400
    assert "expected 2, got 3" in response.json()["error"]


async def test_in_a_bulk_the_first_line_decides_whatever_its_name(client: Client) -> None:
    named = {"embedding_model": "m"}
    for first, second in (
        (document("z", [1, 2]), document("a", [1, 2, 3])),
        (document("a", [1, 2]), document("b", [1, 2, 3], **named)),
    ):
        lines = "\n".join(json.dumps(line) for line in (first, second))
        answer = await client.post(
            "/index/bulk", content=lines, headers={"Content-Type": "application/x-ndjson"}
        )
        assert answer.json()["accepted"] == 1
        [error] = answer.json()["errors"]
        assert (error["line"], error["code"]) == (2, "dimension_mismatch")
        await client.post("/index/delete", json={"doc_id": first["doc_id"], "namespace": "notes"})


async def test_racing_first_documents_agree_on_one_dimension(client: Client) -> None:
    answers = await asyncio.gather(
        *(post(client, document(f"d{n}", [1.0] * (2 + n % 2))) for n in range(20))
    )
    assert sorted({status for status, _ in answers}) == [200, 400]
    stats = (await client.get("/index/stats")).json()
    assert stats["total_documents"] == sum(status == 200 for status, _ in answers) == 10


async def test_racing_to_refill_an_empty_namespace_settles_on_one_dimension(
    client: Client,
) -> None:
    await post(client, document("a", [1, 0, 0, 0]))
    await client.post("/index/delete", json={"doc_id": "a", "namespace": "notes"})
    answers = await asyncio.gather(
        *(post(client, document(f"d{n}", [1.0] * (2 + n % 2))) for n in range(20))
    )
    assert {status for status, _ in answers} == {200, 400}
    assert sum(status == 200 for status, _ in answers) == 10
