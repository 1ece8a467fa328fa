"""What filters read of chunks stands beside them, whoever writes and deletes them, and how."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import pytest

from tests.conftest import Client, Sql, document
from tests.test_online_migration import WRONG

AT = datetime(2026, 1, 1, tzinfo=UTC)

ORDINALS = "SELECT doc_id, count(*) FROM indexd.chunk_fields GROUP BY 1 ORDER BY 1"


def sent(doc_id: str, chunks: int, **rest: Any) -> dict[str, Any]:
    """A document with tags, meta, origin and half-life of its own, and of its chunks."""
    return document(
        doc_id,
        *([1, n] for n in range(chunks)),
        metas=[{"tags": ["own", f"n{n}"], "source_path": f"p/{n}", "n": n} for n in range(chunks)],
        **{
            "meta": {"tags": ["of the document"], "n": "under the chunk's", "lang": "de"},
            "source_ref": {"origin": "vault", "id": "x"},
            "half_life_seconds": 60.0,
            "ingested_at": AT.isoformat(),
        }
        | rest,
    )


async def put(client: Client, *bodies: dict[str, Any]) -> None:
    for body in bodies:
        answer = await client.post("/index/upsert", json=body)
        assert answer.status_code == 200, answer.text


async def put_bulk(client: Client, *bodies: dict[str, Any]) -> None:
    answer = await client.post(
        "/index/bulk",
        content=b"\n".join(msgspec.json.encode(body) for body in bodies),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert answer.json()["accepted"] == len(bodies), answer.text


@pytest.fixture
def bare(clone: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A database without the triggers that programs of the release before need."""
    clone.autocommit = True
    clone.execute("DROP TRIGGER write_chunk_fields ON indexd.chunks")
    clone.execute("DROP TRIGGER count_version ON indexd.documents")
    return clone


@pytest.mark.parametrize("chunks", [1, 3, 40])
@pytest.mark.parametrize("write", [put, put_bulk])
async def test_each_write_gives_chunks_their_fields_without_a_trigger(
    bare: psycopg.Connection[Any], own_client: Client, own_sql: Sql, chunks: int, write: Any
) -> None:
    await write(own_client, sent("a", chunks), sent("b", chunks, meta={"tags": "none"}))
    assert own_sql(WRONG) == [(0,)]
    assert own_sql(ORDINALS) == [("a", chunks), ("b", chunks)]
    assert own_sql(
        "SELECT tags, meta, source_path, source_ref_origin, half_life_seconds, half_life_class, "
        "ingested_at FROM indexd.chunk_fields WHERE doc_id = 'a' AND ordinal = 0"
    ) == [
        (
            ["own", "n0", "of the document"],
            {"tags": ["own", "n0"], "source_path": "p/0", "n": 0, "lang": "de"},
            "p/0",
            "vault",
            60.0,
            6,
            AT,
        )
    ]
    # Another meta of the document alone is a change of every chunk's fields.
    await write(own_client, sent("a", chunks, meta={"lang": "en"}), sent("c", 2))
    await write(own_client, sent("b", 2))
    assert own_sql(WRONG) == [(0,)]
    assert own_sql(ORDINALS) == [("a", chunks), ("b", 2), ("c", 2)]


async def test_chunks_get_the_generation_of_their_namespace(
    own_client: Client, own_sql: Sql
) -> None:
    await put(own_client, sent("a", 1))
    own_sql("UPDATE indexd.namespaces SET generation = 7")
    await put(own_client, sent("b", 2), sent("c", 40))
    await put(own_client, sent("a", 3))
    assert own_sql("SELECT DISTINCT doc_id, generation FROM indexd.chunks ORDER BY 1") == [
        ("a", 7),
        ("b", 7),
        ("c", 7),
    ]
    own_sql("DELETE FROM indexd.documents WHERE doc_id = 'b'")
    await put(own_client, sent("new", 1))
    assert own_sql("SELECT generation FROM indexd.chunks WHERE doc_id = 'new'") == [(7,)]


async def test_fields_leave_with_their_document(client: Client, sql: Sql) -> None:
    await put(client, *(sent(name, 2) for name in "abcde"))
    await client.post("/index/delete", json={"doc_id": "a", "namespace": "notes"})
    await client.post("/index/documents/delete", json={"doc_ids": ["b"], "namespace": "notes"})
    forgotten = await client.post(
        "/index/forget",
        json={"filter": {"namespace": "notes", "doc_id": "c"}, "reason": "x", "confirm": True},
    )
    assert forgotten.status_code == 200, forgotten.text
    assert sql(ORDINALS) == [("d", 2), ("e", 2)]
    assert sql(WRONG) == [(0,)]


@pytest.mark.parametrize("chunks", [1, 40])
async def test_what_an_old_program_left_of_a_document_does_not_come_back_with_it(
    client: Client, sql: Sql, chunks: int
) -> None:
    await put(client, sent("a", 50))
    for table in ("documents", "chunks"):
        sql(f"DELETE FROM indexd.{table}")
    sql("UPDATE indexd.namespaces SET documents = 0, chunks = 0")
    assert sql(ORDINALS) == [("a", 50)]
    await put(client, sent("a", chunks))
    assert sql(ORDINALS) == [("a", chunks)]
    assert sql(WRONG) == [(0,)]
