"""Versions of documents, and writes that depend on what is stored."""

import asyncio
import json
import random
from typing import Any

import pytest

from tests.conftest import Client, Sql, document

VECTOR = [1.0, 0.0]


async def put(client: Client, text: str, doc_id: str = "d", **more: Any) -> tuple[int, Any]:
    body = document(doc_id, VECTOR, texts=[text]) | more
    answer = await client.post("/index/upsert", json=body)
    return answer.status_code, answer.json()


async def delete(client: Client, doc_id: str = "d") -> None:
    answer = await client.post("/index/delete", json={"doc_id": doc_id, "namespace": "notes"})
    assert answer.status_code == 200


def texts(sql: Sql) -> list[str]:
    return [text for (text,) in sql("SELECT text FROM indexd.chunks ORDER BY doc_id, ordinal")]


async def test_each_change_raises_the_version_and_nothing_else_does(client: Client) -> None:
    versions = []
    for text in ("a", "a", "b", "b", "a"):
        _, told = await put(client, text)
        versions.append((told["version"], told["unchanged"]))
    assert versions == [(1, False), (1, True), (2, False), (2, True), (3, False)]


async def test_a_document_of_many_chunks_has_versions_too(client: Client) -> None:
    vectors = [VECTOR] * 40
    for expected, text in ((1, "a"), (2, "b")):
        body = document("d", *vectors, texts=[text] * 40)
        answer = await client.post("/index/upsert", json=body)
        assert answer.json()["version"] == expected


async def test_a_document_that_comes_back_goes_on_after_its_last_version(client: Client) -> None:
    await put(client, "a")
    await put(client, "b")
    await delete(client)
    assert (await put(client, "c"))[1]["version"] == 3
    await client.post(
        "/index/forget",
        json={"filter": {"namespace": "notes", "doc_id": "d"}, "reason": "r", "confirm": True},
    )
    vectors = [VECTOR] * 40
    answer = await client.post("/index/upsert", json=document("d", *vectors, texts=[""] * 40))
    assert answer.json()["version"] == 4
    assert (await put(client, "a", "another"))[1]["version"] == 1


async def test_skip_leaves_what_is_stored(client: Client, sql: Sql) -> None:
    _, first = await put(client, "a", on_conflict="skip")
    assert (first["status"], first["version"]) == ("accepted", 1)
    for text in ("b", "a"):
        _, told = await put(client, text, on_conflict="skip")
        assert (told["status"], told["version"], told["chunks"]) == ("skipped", 1, 1)
    assert texts(sql) == ["a"]


async def test_fail_refuses_what_is_stored_also_if_it_is_identical(
    client: Client, sql: Sql
) -> None:
    assert (await put(client, "a", on_conflict="fail"))[0] == 200
    for text in ("b", "a"):
        status, told = await put(client, text, on_conflict="fail")
        assert (status, told["code"], told["details"]) == (409, "conflict", {"version": 1})
    assert texts(sql) == ["a"]


async def test_if_version_writes_only_over_that_version(client: Client, sql: Sql) -> None:
    status, told = await put(client, "a", if_version=1)
    assert (status, told["code"], told["details"]) == (409, "conflict", {"version": 0})
    assert texts(sql) == []
    assert (await put(client, "a", if_version=0))[1]["version"] == 1
    assert (await put(client, "b", if_version=0))[0] == 409
    assert (await put(client, "b", if_version=2))[0] == 409
    assert (await put(client, "b", if_version=1))[1]["version"] == 2
    assert (await put(client, "b", if_version=1))[0] == 409
    assert (await put(client, "b", if_version=2))[1]["unchanged"] is True
    assert texts(sql) == ["b"]


@pytest.mark.parametrize("wrong", [-1, 1.5, "1", True, 2**63])
async def test_a_version_is_a_number_that_a_version_can_be(client: Client, wrong: Any) -> None:
    assert (await put(client, "a", if_version=wrong))[0] == 400


async def test_lines_of_a_bulk_have_conditions_of_their_own(client: Client, sql: Sql) -> None:
    await put(client, "old", "a")
    await put(client, "old", "b")
    lines = [
        document("a", VECTOR, texts=["new"]) | {"on_conflict": "skip"},
        document("b", VECTOR, texts=["new"]) | {"on_conflict": "fail"},
        document("c", VECTOR, texts=["new"]) | {"on_conflict": "fail"},
        document("d", VECTOR, texts=["new"]) | {"if_version": 7},
        document("e", VECTOR, texts=["new"]) | {"if_version": 0},
        document("c", VECTOR, texts=["newer"]) | {"if_version": 1},
    ]
    answer = await client.post(
        "/index/bulk",
        content="\n".join(map(json.dumps, lines)),
        headers={"Content-Type": "application/x-ndjson"},
    )
    told = answer.json()
    assert (told["accepted"], told["skipped"], told["failed"]) == (3, 1, 2)
    assert [(error["line"], error["code"]) for error in told["errors"]] == [
        (2, "conflict"),
        (4, "conflict"),
    ]
    assert texts(sql) == ["old", "old", "newer", "new"]


@pytest.mark.slow
async def test_eight_writers_with_if_version_lose_no_update(client: Client, sql: Sql) -> None:
    """Each appends its name to the text that it read; each tenth round deletes the document."""
    wrote: list[str] = []
    rounds = iter(range(1_000))

    async def stored() -> tuple[int, str]:
        answer = await client.get("/index/document?namespace=notes&doc_id=d")
        if answer.status_code == 404:
            return 0, ""
        [chunk] = answer.json()["chunks"]
        return answer.json()["version"], chunk["text"]

    async def write(name: str) -> None:
        for number in rounds:
            version, text = await stored()
            if number % 10 == 9:
                await delete(client)
                continue
            status, told = await put(client, f"{text} {name}{number}", if_version=version)
            assert status in (200, 409), told
            if status == 200:
                wrote.append(f"{name}{number}")
            await asyncio.sleep(random.random() * 1e-3)

    await asyncio.gather(*(write(name) for name in "abcdefgh"))
    assert len(wrote) > 100
    left = sql("SELECT digest, version FROM indexd.documents")
    logged = sql(
        "SELECT version, count(*) FROM indexd.forgotten_documents GROUP BY version "
        "HAVING count(*) > 1"
    )
    assert logged == []
    [(events,)] = sql("SELECT count(*) FROM indexd.forgotten_documents")
    highest = max(
        [version for (version,) in sql("SELECT version FROM indexd.forgotten_documents")]
        + [version for _, version in left]
    )
    # Each accepted write is one version: none overwrote another, and none was numbered twice.
    assert highest == len(wrote)
    assert events > 20


async def test_a_program_of_the_release_before_raises_versions_too(
    client: Client, sql: Sql
) -> None:
    await put(client, "a")
    sql("UPDATE indexd.documents SET digest = 'another' WHERE doc_id = 'd'")
    assert sql("SELECT version FROM indexd.documents") == [(2,)]
    sql("UPDATE indexd.documents SET chunk_count = chunk_count")
    assert sql("SELECT version FROM indexd.documents") == [(2,)]
