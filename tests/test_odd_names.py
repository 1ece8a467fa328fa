"""A name or a value may hold anything, also what the decoder writes before a path."""

import json

import pytest

from tests.conftest import Client, Sql, document

ODD = ["x - at `$.y", " - at `$", "x` - at `$.nope", "x` - at `$.chunks[0]"]


@pytest.mark.parametrize("name", ODD)
async def test_a_name_that_looks_like_a_path_is_refused_too(client: Client, name: str) -> None:
    answer = await client.post("/index/search", json={"embedding": [1, 0], name: 1})
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_field")


@pytest.mark.parametrize("value", ODD)
async def test_a_value_that_looks_like_a_path_is_refused_too(client: Client, value: str) -> None:
    answer = await client.post("/index/search", json={"embedding": [1, 0], "mode": value})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")
    assert answer.json()["error"].startswith("mode: ")


@pytest.mark.parametrize("name", ODD)
async def test_such_a_line_stops_no_other_line_of_a_bulk(
    client: Client, sql: Sql, name: str
) -> None:
    lines = [document("a", [1, 0]), document("b", [1, 0]) | {name: 1}, document("c", [1, 0])]
    answer = await client.post(
        "/index/bulk",
        content="\n".join(map(json.dumps, lines)),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert answer.status_code == 200
    assert [error["code"] for error in answer.json()["errors"]] == ["unknown_field"]
    assert sql("SELECT doc_id FROM indexd.documents ORDER BY doc_id") == [("a",), ("c",)]
