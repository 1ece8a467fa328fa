"""POST /index/bulk: NDJSON, streamed; each line for itself."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from indexd.api.bulk import _lines
from indexd.app import create_app
from indexd.errors import BodyTooLarge
from indexd.settings import Settings
from tests.conftest import Client, Sql, document

NDJSON = {"Content-Type": "application/x-ndjson"}


async def bulk(client: Client, *lines: Any) -> dict[str, Any]:
    body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    response = await client.post("/index/bulk", content=body, headers=NDJSON)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_good_lines_are_written_and_bad_ones_named(client: Client, sql: Sql) -> None:
    answer = await bulk(
        client,
        document("a", [1, 0], [0, 1]),
        "",
        "  \t",
        document("b", [1, 0, 0]),
        "{not json",
        {"doc_id": "c", "namespace": "notes", "chunks": []},
        document("d", [1, 0], namespace="other"),
        document("e", [1]),
    )
    assert {key: answer[key] for key in ("accepted", "unchanged", "chunks", "failed")} == {
        "accepted": 2,
        "unchanged": 0,
        "chunks": 3,
        "failed": 4,
    }
    assert [(e["line"], e["doc_id"], e["code"]) for e in answer["errors"]] == [
        (4, "b", "dimension_mismatch"),
        (5, None, "invalid_json"),
        (6, "c", "invalid_field"),
        (8, "e", "dimension_mismatch"),
    ]
    assert answer["forgotten"] == {"ttl": 0, "retention": 0}
    assert sql("SELECT doc_id FROM indexd.documents ORDER BY 1") == [("a",), ("d",)]


async def test_the_later_line_of_one_document_wins(client: Client, sql: Sql) -> None:
    answer = await bulk(
        client,
        document("a", [1, 0], texts=["first"]),
        document("b", [1, 0]),
        document("a", [1, 0], texts=["second"]),
        document("a", [1, 0], texts=["second"]),
    )
    assert (answer["accepted"], answer["unchanged"]) == (4, 1)
    assert sql("SELECT text FROM indexd.chunks WHERE doc_id = 'a'") == [("second",)]
    assert sql("SELECT documents, chunks FROM indexd.namespaces") == [(2, 2)]


async def test_a_second_push_rewrites_nothing(client: Client, sql: Sql) -> None:
    lines = [document(f"d{n}", [1, n]) for n in range(600)]
    assert (await bulk(client, *lines))["accepted"] == 600
    before = sql("SELECT max(xmin::text::bigint), count(*) FROM indexd.chunks")
    answer = await bulk(client, *lines)
    assert (answer["accepted"], answer["unchanged"], answer["chunks"]) == (600, 600, 600)
    assert sql("SELECT max(xmin::text::bigint), count(*) FROM indexd.chunks") == before


async def test_the_first_line_of_an_empty_namespace_fixes_the_dimension(client: Client) -> None:
    answer = await bulk(client, *(document(f"d{n}", [1.0] * (2 + n % 2)) for n in range(10)))
    assert (answer["accepted"], answer["failed"]) == (5, 5)
    assert {error["line"] for error in answer["errors"]} == {2, 4, 6, 8, 10}


async def test_at_most_a_hundred_errors_are_listed_and_all_are_counted(client: Client) -> None:
    answer = await bulk(client, *["x"] * 250)
    assert answer["failed"] == 250
    assert [error["line"] for error in answer["errors"]] == list(range(1, 101))


async def test_a_line_that_only_the_database_refuses_stops_no_other(
    client: Client, sql: Sql
) -> None:
    far = document("far", [1, 0], meta={"n": 1})
    # jsonb takes no number of more than 131,072 digits before the point.
    line = json.dumps(far).replace('"n": 1', '"n": 1' + "0" * 4000)
    answer = await bulk(client, document("a", [1, 0]), line, document("b", [1, 0]))
    assert answer["accepted"] + answer["failed"] == 3
    assert {doc_id for (doc_id,) in sql("SELECT doc_id FROM indexd.documents")} >= {"a", "b"}


async def test_an_empty_body_is_no_documents(client: Client) -> None:
    assert (await bulk(client, ""))["accepted"] == 0


async def test_another_content_type_is_refused(client: Client) -> None:
    response = await client.post("/index/bulk", content=b"{}", headers={"Content-Type": "text/csv"})
    assert response.status_code == 415
    assert "Content-Type" in response.json()["error"]


async def test_a_line_over_the_limit_is_named_whatever_came_before_it(settings: Settings) -> None:
    small = msgspec.structs.replace(settings, max_line_bytes=1_000)
    async with Client(create_app(small)) as client:
        long = document("long", [1, 0], texts=["x" * 2_000])
        for lines in ((long, document("a", [1, 0])), (document("a", [1, 0]), long)):
            answer = await bulk(client, *lines)
            assert (answer["accepted"], answer["failed"]) == (1, 1)
            [error] = answer["errors"]
            assert (error["line"], error["doc_id"]) == (1 + lines.index(long), None)
            assert error["code"] == "body_too_large"


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_lines_are_put_together_from_the_pieces_they_come_in() -> None:
    found = [line async for line in _lines(pieces(b"a", b"b\n", b"\nc", b"d\r\ne", b""), 10)]
    assert found == [(1, b"ab"), (3, b"cd\r"), (4, b"e")]


async def test_a_line_over_the_limit_is_refused_alone_and_not_kept() -> None:
    stream = pieces(b"ok\n", b"x" * 6, b"x" * 6, b"x\nok\nyy", b"y" * 9)
    found = [
        (number, line if isinstance(line, bytes) else type(line))
        async for number, line in _lines(stream, 10)
    ]
    assert found == [(1, b"ok"), (2, BodyTooLarge), (3, b"ok"), (4, BodyTooLarge)]
