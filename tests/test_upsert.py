"""POST /index/upsert and /index/delete: whole documents, once."""

from typing import Any

import pytest

from tests.conftest import Client, Sql, document


async def upsert(client: Client, body: dict[str, Any]) -> dict[str, Any]:
    response = await client.post("/index/upsert", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def versions(sql: Sql) -> list[tuple[Any, ...]]:
    """Changes whenever PostgreSQL writes a row anew."""
    return sql(
        """
        SELECT xmin, ingested_at FROM indexd.documents
        UNION ALL
        SELECT xmin, ingested_at FROM indexd.chunks
        """
    )


async def test_upsert_answers_what_it_took(client: Client) -> None:
    assert await upsert(client, document("a", [1, 0], [0, 1])) == {
        "status": "accepted",
        "chunks": 2,
        "namespace": "notes",
        "unchanged": False,
        "version": 1,
        "forgotten": {"ttl": 0, "retention": 0},
    }


async def test_a_document_is_stored_with_all_that_was_sent(client: Client, sql: Sql) -> None:
    await upsert(
        client,
        document(
            "a/ä#1",
            [3, 4],
            texts=["Grüße"],
            metas=[{"tags": ["x/y"], "source_path": "p.md", "n": 1.5}],
            meta={"title": "T"},
            source_ref={"origin": "code", "id": "src/main.rs", "offset": "line:100-120"},
            half_life_seconds=0.5,
            ingested_at="2026-01-01T02:00:00+02:00",
        ),
    )
    assert sql(
        """
        SELECT doc_id, chunk_id, text, chunks.meta, tags, source_path, embedding::text,
               documents.meta, documents.source_ref_origin, source_ref_id, source_ref_offset,
               chunks.half_life_seconds, chunks.ingested_at = '2026-01-01T00:00:00Z'
          FROM indexd.chunks JOIN indexd.documents USING (namespace, doc_id)
        """
    ) == [
        (
            *("a/ä#1", "a/ä#1#0", "Grüße"),
            {"tags": ["x/y"], "source_path": "p.md", "n": 1.5},
            *(["x/y"], "p.md", "[0.6,0.8]", {"title": "T"}),
            *("code", "src/main.rs", "line:100-120", 0.5, True),
        )
    ]


async def test_the_short_form_of_a_chunk_is_taken_as_well(client: Client, sql: Sql) -> None:
    chunk = {"chunk_id": "c", "text": "t", "embedding": [0, 2], "meta": {"k": 1}}
    await upsert(client, {"doc_id": "a", "chunks": [chunk]})
    assert sql("SELECT namespace, chunk_id, embedding::text, meta FROM indexd.chunks") == [
        ("default", "c", "[0,1]", {"k": 1})
    ]


@pytest.mark.parametrize("name", [None, "", "   ", "default", " default\t"])
async def test_a_missing_or_blank_namespace_is_default(client: Client, name: str | None) -> None:
    assert (await upsert(client, document("a", [1], namespace=name)))["namespace"] == "default"


async def test_upsert_replaces_the_chunks_as_a_whole(client: Client, sql: Sql) -> None:
    await upsert(client, document("a", [1, 0], [0, 1], [1, 1]))
    await upsert(client, document("a", [0, 1], texts=["new"]))
    assert sql("SELECT chunk_id, text FROM indexd.chunks") == [("a#0", "new")]
    assert sql("SELECT documents, chunks FROM indexd.namespaces") == [(1, 1)]


async def test_an_unchanged_document_is_not_rewritten(client: Client, sql: Sql) -> None:
    body = document("a", [1, 0], texts=["t"], metas=[{"a": 1, "b": 2}])
    await upsert(client, body)
    before = versions(sql)
    body["chunks"][0]["meta"] = {"b": 2, **body["chunks"][0]["meta"]}
    assert (await upsert(client, body))["unchanged"] is True
    assert before == versions(sql)


@pytest.mark.parametrize(
    "change",
    [
        {"texts": ["u"]},
        {"metas": [{"a": 2}]},
        {"meta": {"x": 1}},
        {"source_ref": {"origin": "o", "id": "i"}},
        {"half_life_seconds": 5.0},
        {"ingested_at": "2020-01-01T00:00:00Z"},
    ],
)
async def test_any_change_makes_a_document_new(
    client: Client, sql: Sql, change: dict[str, Any]
) -> None:
    await upsert(client, document("a", [1, 0], texts=["t"]))
    [(before,)] = sql("SELECT ingested_at FROM indexd.documents")
    assert (await upsert(client, document("a", [1, 0], **{"texts": ["t"], **change})))[
        "unchanged"
    ] is False
    [(after,)] = sql("SELECT ingested_at FROM indexd.documents")
    assert after != before


async def test_an_explicit_time_that_is_the_stored_one_is_no_change(client: Client) -> None:
    body = document("a", [1, 0], ingested_at="2020-01-01T00:00:00Z")
    await upsert(client, body)
    body["ingested_at"] = "2020-01-01T01:00:00+01:00"
    assert (await upsert(client, body))["unchanged"] is True


async def test_a_refused_document_leaves_the_old_one_whole(client: Client, sql: Sql) -> None:
    await upsert(client, document("a", [1, 0], [0, 1]))
    before = sql("SELECT * FROM indexd.chunks ORDER BY ordinal")
    bad = document("a", [1, 0], [0, 1])
    bad["chunks"][1]["meta"]["embedding"] = [0, 0]
    response = await client.post("/index/upsert", json=bad)
    assert response.status_code == 400
    assert sql("SELECT * FROM indexd.chunks ORDER BY ordinal") == before


@pytest.mark.slow
async def test_a_document_of_ten_thousand_chunks(client: Client, sql: Sql, rng: Any) -> None:
    body = document("big", *rng.normal(size=(10_000, 8)))
    assert (await upsert(client, body))["chunks"] == 10_000
    assert sql("SELECT count(*), max(ordinal) FROM indexd.chunks") == [(10_000, 9_999)]


async def test_delete_removes_the_document_and_logs_it(client: Client, sql: Sql) -> None:
    await upsert(client, document("a", [1, 0]))
    await upsert(client, document("b", [1, 0]))
    response = await client.post("/index/delete", json={"doc_id": "a", "namespace": " notes "})
    assert (response.status_code, response.json()) == (
        200,
        {"status": "accepted", "deleted": 1},
    )
    assert sql("SELECT doc_id FROM indexd.chunks") == [("b",)]
    assert sql("SELECT documents, chunks FROM indexd.namespaces") == [(1, 1)]
    assert sql(
        """
        SELECT namespace, doc_id, kind, forgotten_count
          FROM indexd.forget_events JOIN indexd.forgotten_documents USING (namespace, event_id)
        """
    ) == [("notes", "a", "delete", 1)]


async def test_deleting_what_is_not_there_is_accepted_and_not_logged(
    client: Client, sql: Sql
) -> None:
    response = await client.post("/index/delete", json={"doc_id": "nope"})
    assert response.json() == {"status": "accepted", "deleted": 0}
    assert sql("SELECT count(*) FROM indexd.forget_events") == [(0,)]
