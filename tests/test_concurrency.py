"""Many clients at once: no error, no lost update, no orphan, counts that agree."""

import asyncio
import json
import random
from typing import Any

import pytest

from tests.conftest import Client, Sql, document


@pytest.mark.slow
async def test_fifty_clients_at_once(client: Client, sql: Sql) -> None:
    async def one(number: int) -> list[int]:
        chance = random.Random(number)
        statuses = []
        for _ in range(8):
            doc_id = f"d{chance.randrange(12)}"
            action = chance.choice(["upsert", "upsert", "delete", "search"])
            body: dict[str, Any] = {"namespace": "notes", "doc_id": doc_id}
            if action == "upsert":
                vectors = [[chance.random() + 0.1, 1] for _ in range(chance.randrange(1, 6))]
                body = document(doc_id, *vectors)
            elif action == "search":
                body = {"namespace": "notes", "embedding": [1, 0]}
            statuses.append((await client.post(f"/index/{action}", json=body)).status_code)
        return statuses

    statuses = await asyncio.gather(*(one(number) for number in range(50)))
    assert {status for group in statuses for status in group} == {200}
    assert sql(
        """
        SELECT namespaces.documents = (SELECT count(*) FROM indexd.documents),
               namespaces.chunks = (SELECT count(*) FROM indexd.chunks),
               namespaces.chunks = (SELECT sum(chunk_count) FROM indexd.documents),
               (SELECT count(*) FROM indexd.forget_events)
               = (SELECT count(*) FROM indexd.forgotten_documents)
          FROM indexd.namespaces
        """
    ) == [(True, True, True, True)]
    assert (
        sql(
            """
            SELECT doc_id FROM indexd.chunks
            EXCEPT SELECT doc_id FROM indexd.documents
            """
        )
        == []
    )


async def test_one_document_written_by_many_is_the_last_one_whole(client: Client, sql: Sql) -> None:
    bodies = [document("a", *[[1, n]] * 5, texts=[f"version {n}"] * 5) for n in range(30)]
    answers = await asyncio.gather(*(client.post("/index/upsert", json=b) for b in bodies))
    assert {answer.status_code for answer in answers} == {200}
    assert len(sql("SELECT DISTINCT text FROM indexd.chunks")) == 1
    assert sql("SELECT documents, chunks FROM indexd.namespaces") == [(1, 5)]


async def test_bulks_over_the_same_documents_in_other_orders_do_not_deadlock(
    client: Client, sql: Sql
) -> None:
    def body(seed: int) -> str:
        lines = [document(f"d{n}", [1, seed + n]) for n in range(200)]
        random.Random(seed).shuffle(lines)
        return "\n".join(map(json.dumps, lines))

    answers = await asyncio.gather(
        *(
            client.post(
                "/index/bulk",
                content=body(seed),
                headers={"Content-Type": "application/x-ndjson"},
            )
            for seed in range(8)
        )
    )
    assert [answer.json()["accepted"] for answer in answers] == [200] * 8
    assert sql("SELECT documents, chunks FROM indexd.namespaces") == [(200, 200)]
