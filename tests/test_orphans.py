"""Rows that foreign hands deleted: no upsert fails for what they left, and doctor mends it."""

import subprocess
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.conftest import Client, Sql, document
from tests.test_backup import indexd

pytestmark = pytest.mark.slow


async def put(client: Client, *bodies: dict[str, Any]) -> None:
    for body in bodies:
        answer = await client.post("/index/upsert", json=body)
        assert answer.status_code == 200, answer.text


def counts(sql: Sql) -> list[tuple[Any, ...]]:
    """What the namespaces say they hold, and what they hold."""
    return sql("""
        SELECT namespace, documents, chunks,
               (SELECT count(*) FROM indexd.documents WHERE namespace = namespaces.namespace),
               (SELECT count(*) FROM indexd.chunks WHERE namespace = namespaces.namespace)
          FROM indexd.namespaces
         ORDER BY namespace
    """)


@pytest.mark.parametrize("chunks", [1, 3, 40])
@pytest.mark.parametrize("way", ["upsert", "bulk"])
async def test_a_document_deleted_by_hand_can_be_sent_again(
    client: Client, sql: Sql, chunks: int, way: str
) -> None:
    await put(client, document("a", [1, 0], [0, 1], [1, 1]), document("b", [1, 0]))
    await client.post(
        "/index/feedback", json={"doc_id": "a", "namespace": "notes", "useful": False}
    )
    sql("DELETE FROM indexd.documents WHERE doc_id = 'a'")
    again = document("a", *np.ones((chunks, 2)), texts=[f"text {n}" for n in range(chunks)])
    if way == "upsert":
        await put(client, again)
    else:
        lines = [msgspec.json.encode(again), msgspec.json.encode(document("c", [1, 0]))]
        answer = await client.post(
            "/index/bulk",
            content=b"\n".join(lines),
            headers={"Content-Type": "application/x-ndjson"},
        )
        assert answer.json()["accepted"] == 2, answer.text
    texts = sql("SELECT text FROM indexd.chunks WHERE doc_id = 'a' ORDER BY ordinal")
    assert texts == [(f"text {n}",) for n in range(chunks)]
    assert sql("SELECT doc_id FROM indexd.relevance") == []
    [(_, documents, counted, *actual)] = counts(sql)
    assert [documents, counted] == actual


async def test_doctor_finds_orphans_and_mends_them_when_told(
    client: Client, sql: Sql, common_url: str
) -> None:
    await put(
        client,
        document("a", [1, 0], [0, 1]),
        document("b", [1, 0], [0, 1]),
        document("c", [1, 0]),
        document("d", [1, 0], namespace="other"),
    )
    await client.post("/index/feedback", json={"doc_id": "a", "namespace": "notes", "useful": True})
    await client.post("/index/delete", json={"doc_id": "c", "namespace": "notes"})
    assert "orphans: ok" in doctor(common_url)
    sql("DELETE FROM indexd.documents WHERE doc_id = 'a'")
    sql("DELETE FROM indexd.chunks WHERE doc_id = 'b' AND ordinal = 1")
    sql("DELETE FROM indexd.forget_events")
    sql("UPDATE indexd.namespaces SET documents = 7 WHERE namespace = 'other'")
    said = doctor(common_url, fails=True)
    ill = (
        "2 chunks and 1 relevance rows without a document, fields of 1 chunks that are gone, "
        "1 forgotten documents without an event, "
        "1 documents without all their chunks, wrong counts of 2 namespaces"
    )
    assert f"orphans: failed ({ill}: run `indexd doctor --mend`)" in said
    assert f"orphans: mended ({ill})" in doctor(common_url, "--mend")
    assert "orphans: ok" in doctor(common_url)
    assert counts(sql) == [("notes", 1, 1, 1, 1), ("other", 1, 1, 1, 1)]
    for table in ("relevance", "forgotten_documents"):
        assert sql(f"SELECT doc_id FROM indexd.{table}") == []
    assert sql("SELECT doc_id, ordinal FROM indexd.chunk_fields ORDER BY 1") == [("b", 0), ("d", 0)]
    # What lost a chunk is not taken for unchanged.
    answer = await client.post("/index/upsert", json=document("b", [1, 0], [0, 1]))
    assert answer.json()["unchanged"] is False
    assert counts(sql)[0] == ("notes", 1, 2, 1, 2)


async def test_a_namespace_deleted_by_hand_comes_back_with_its_counts(
    client: Client, sql: Sql, common_url: str
) -> None:
    await put(client, document("a", [1, 0], [0, 1]))
    sql("DELETE FROM indexd.namespaces")
    assert "wrong counts of 1 namespaces: run" in doctor(common_url, fails=True)
    doctor(common_url, "--mend")
    assert counts(sql) == [("notes", 1, 2, 1, 2)]
    answer = await client.post("/index/search", json={"namespace": "notes", "embedding": [1, 0]})
    assert [hit["doc_id"] for hit in answer.json()["results"]] == ["a", "a"]


def doctor(url: str, *words: str, fails: bool = False) -> str:
    found: subprocess.CompletedProcess[str] = indexd(url, "doctor", *words)
    assert found.returncode == int(fails), found.stdout + found.stderr
    return found.stdout
