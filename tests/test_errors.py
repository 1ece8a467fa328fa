"""Whatever a client sends: the contract's status and body, never a 500, nothing half-written."""

import json
from typing import Any

import pytest

from tests.conftest import Client, Sql, document

JSON = {"Content-Type": "application/json"}
GOOD: dict[str, Any] = {
    "doc_id": "a",
    "namespace": "notes",
    "chunks": [{"id": "c", "text": "t", "embedding": [1, 0], "meta": {}}],
    "meta": {},
    "source_ref": {"origin": "o", "id": "i"},
    "half_life_seconds": 1,
    "ingested_at": "2026-01-01T00:00:00Z",
}
VALUES: list[Any] = [
    *(None, True, 0, -1, 1e39, 10**400, "", " ", "x", "ä" * 600, [], [[]], {}, {"a": []}),
    *(["x"], [None], [True], [1, "2"], [1e39], [0, 0], [10**400], "2026-01-01", {"id": 1}),
    *({"embedding": None}, {"tags": "x"}, {"tags": [1]}, {"source_path": 1}, {"snippet": 1}),
]
PLACES = [
    *(("doc_id",), ("namespace",), ("chunks",), ("chunks", 0), ("chunks", 0, "id")),
    *(("chunks", 0, "text"), ("chunks", 0, "embedding"), ("chunks", 0, "meta")),
    *(("meta",), ("source_ref",), ("source_ref", "origin"), ("source_ref", "id")),
    *(("source_ref", "offset"), ("source_ref", "trust_level")),
    *(("half_life_seconds",), ("ingested_at",)),
]


def changed(body: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(body))
    target: Any = copy
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    return copy


def is_contract_error(response: Any) -> bool:
    body = response.json()
    return (
        response.headers["content-type"] == "application/json"
        and isinstance(body["error"], str)
        and body["code"].replace("_", "").islower()
        and set(body) <= {"error", "code", "hint", "details"}
    )


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
async def test_every_field_of_an_upsert_takes_any_value_without_a_500(
    client: Client, sql: Sql, place: tuple[Any, ...]
) -> None:
    for value in VALUES:
        response = await client.post("/index/upsert", json=changed(GOOD, place, value))
        if response.status_code == 200:
            assert sql("SELECT count(*) FROM indexd.chunks") == [(1,)]
            await client.post(
                "/index/delete",
                json={"namespace": response.json()["namespace"], "doc_id": doc_id(sql)},
            )
        else:
            assert response.status_code == 400, (value, response.text)
            assert is_contract_error(response), value
        assert sql("SELECT count(*) FROM indexd.documents") == [(0,)], value


def doc_id(sql: Sql) -> str:
    [(found,)] = sql("SELECT doc_id FROM indexd.documents")
    return str(found)


@pytest.mark.parametrize(
    "place",
    [
        *(("query",), ("query", "text"), ("query", "meta"), ("namespace",), ("k",), ("filters",)),
        *(("embedding",), ("meta",), ("mode",), ("include_weights",), ("filters", "tags")),
        *(("filters", "meta"), ("filters", "ingested_after"), ("filters", "source_path")),
    ],
    ids=lambda place: ".".join(place),
)
async def test_every_field_of_a_search_takes_any_value_without_a_500(
    client: Client, place: tuple[Any, ...]
) -> None:
    await client.post("/index/upsert", json=GOOD)
    good = {"query": {"text": "x"}, "embedding": [1, 0], "namespace": "notes", "filters": {}}
    for value in VALUES:
        for mode in ("auto", "lexical"):
            body = {"mode": mode} | changed(good, place, value)
            response = await client.post("/index/search", json=body)
            assert response.status_code in (200, 400), (value, response.text)
            if response.status_code == 400:
                assert is_contract_error(response), value


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"doc_id": "a", "chunks": [{"text": "t', "invalid_json"),
        (b"[]", "invalid_field"),
        (b"null", "invalid_field"),
        (b'"text"', "invalid_field"),
        (b'{"doc_id": "a"}', "invalid_field"),
        (b'{"doc_id": "a", "chunks": []}', "invalid_field"),
        (b'{"doc_id": "a", "chunks": [{"text": "t"}]}', "invalid_embedding"),
        (b'{"doc_id": "a", "chunks": [{"embedding": [NaN]}]}', "invalid_json"),
        (b'{"doc_id": "a", "chunks": [{"embedding": [Infinity]}]}', "invalid_json"),
        (b'{"doc_id": "a", "chunks": [{"embedding": [1e39]}]}', "invalid_embedding"),
        (b'{"doc_id": "a", "chunks": [{"embedding": [1e400]}]}', None),
        (b'{"doc_id": "a", "chunks": [{"embedding": [1e-60, 0]}]}', "invalid_embedding"),
        (b'{"doc_id": "a", "chunks": [{"embedding": ' + b"[" * 10**5 + b"}]}", "invalid_json"),
        (b'{"doc_id": "a\\u0000", "chunks": [{"embedding": [1]}]}', "invalid_field"),
        (b'{"doc_id": "a", "meta": {"\\u0000": 1}, "chunks": [{"embedding": [1]}]}', None),
        (b'{"doc_id": "\\ud800", "chunks": [{"embedding": [1]}]}', "invalid_json"),
        (b'{"doc_id": "\xff", "chunks": [{"embedding": [1]}]}', "invalid_json"),
        (b'{"doc_id": "a", "chunks": [{"embedding": [1]}], "meta": ' + b'{"a":' * 500 + b"1"
         + b"}" * 501, "invalid_field"),
        (b'{"doc_id": "a", "half_life_seconds": 1e400, "chunks": [{"embedding": [1]}]}', None),
        (b'{"doc_id": "a", "ingested_at": "0001-01-01T00:00:00+01:00", '
         b'"chunks": [{"embedding": [1]}]}', "invalid_field"),
        (b'{"doc_id": "a", "source_ref": {"origin": "o", "id": "i", "offset": "src/main.rs"}, '
         b'"chunks": [{"embedding": [1]}]}', "invalid_field"),
        (b'{"doc_id": "a", "chunks": [{"id": "c", "embedding": [1]}, {"id": "c", '
         b'"embedding": [1]}]}', "duplicate_chunk_id"),
        (b'{"doc_id": "a", "chunks": [{"id": "a#1", "embedding": [1]}, {"embedding": [1]}]}',
         "duplicate_chunk_id"),
    ],
)  # fmt: skip
async def test_a_bad_upsert_is_a_400_and_writes_nothing(
    client: Client, sql: Sql, body: bytes, code: str | None
) -> None:
    response = await client.post("/index/upsert", content=body, headers=JSON)
    assert response.status_code == 400, response.text
    assert is_contract_error(response)
    assert code in (None, response.json()["code"])
    assert sql("SELECT count(*) FROM indexd.documents") == [(0,)]


async def test_the_text_backslash_u0000_is_no_nul(client: Client) -> None:
    body = document("a", [1, 0], texts=["the escape \\u0000 is written so"])
    assert (await client.post("/index/upsert", json=body)).status_code == 200


@pytest.mark.parametrize("text", ["\x01\x1f\x7f", "\ufffe\uffff", "e\u0301 é", "🦀" * 100])
async def test_text_and_ids_are_kept_to_the_code_point(client: Client, text: str) -> None:
    body = document(text, [1, 0], texts=[text], metas=[{text: text, "tags": [text]}])
    assert (await client.post("/index/upsert", json=body)).status_code == 200
    response = await client.post("/index/search", json={"namespace": "notes", "embedding": [1, 0]})
    [result] = response.json()["results"]
    assert (result["doc_id"], result["text"]) == (text, text)
    assert result["meta"] == {text: text, "tags": [text]}


async def test_the_longest_ids_and_long_keys_are_taken(client: Client) -> None:
    emoji = [chr(0x1F300 + n % 700) for n in range(512)]
    body = document(
        "".join(emoji),
        [1, 0],
        namespace="".join(emoji[:128]),
        metas=[{"tags": ["".join(emoji)], "source_path": "".join(emoji) * 20}],
        source_ref={"origin": "".join(emoji) * 20, "id": "".join(emoji) * 20},
    )
    body["chunks"][0]["id"] = "".join(reversed(emoji))
    assert (await client.post("/index/upsert", json=body)).status_code == 200
    for filters in (
        {"tags": ["".join(emoji)]},
        {"source_path": "".join(emoji) * 20},
        {"source_ref_origin": "".join(emoji) * 20},
    ):
        response = await client.post(
            "/index/search",
            json={"namespace": body["namespace"], "embedding": [1, 0], "filters": filters},
        )
        assert len(response.json()["results"]) == 1


@pytest.mark.parametrize("route", ["/index/upsert", "/index/search", "/index/delete"])
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-ndjson"])
async def test_a_body_that_is_not_json_by_its_type_is_a_415(
    client: Client, route: str, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = await client.post(route, content=b"{}", headers=headers)
    assert response.status_code == 415
    assert "Content-Type" in response.json()["error"]


async def test_a_charset_does_not_make_it_another_type(client: Client) -> None:
    response = await client.post(
        "/index/delete",
        content=b'{"doc_id": "a"}',
        headers={"Content-Type": "Application/JSON; charset=utf-8"},
    )
    assert response.status_code == 200


async def test_unknown_routes_and_methods(client: Client) -> None:
    missing = await client.post("/index/nothing", json={})
    assert (missing.status_code, is_contract_error(missing)) == (404, True)
    wrong = await client.get("/index/search")
    assert (wrong.status_code, is_contract_error(wrong)) == (405, True)
    assert "POST" in wrong.headers["allow"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (
            "/index/search",
            {"query": "x", "mode": "Vector"},
            "mode: invalid enum value 'Vector', expected auto or hybrid or lexical or vector",
        ),
        (
            "/index/search",
            {"query": "x", "filters": {"tag": ["a"]}},
            "filters.tag: unknown field, expected tags or source_path or ",
        ),
        (
            "/index/upsert",
            GOOD | {"source_ref": {"origin": "o", "id": "i", "trust_level": "HIGH"}},
            "source_ref.trust_level: invalid enum value 'HIGH', expected ",
        ),
    ],
)
async def test_where_there_is_a_choice_the_message_lists_it(
    client: Client, path: str, body: Any, message: str
) -> None:
    answer = await client.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)


async def test_a_query_parameter_that_is_missing_is_named(client: Client) -> None:
    answer = await client.get("/index/document")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")
    assert answer.json()["error"] == "doc_id: expected as a query parameter"


async def test_a_search_without_embedding_and_text_is_refused(client: Client) -> None:
    bodies: list[Any] = [{}, {"query": " "}, {"query": {}}, {"mode": "vector", "query": "x"}]
    for body in bodies:
        response = await client.post("/index/search", json=body)
        assert response.status_code == 400
        assert response.json()["code"] == "missing_query"


@pytest.mark.parametrize("place", ["doc_id", "namespace"])
async def test_a_nul_character_in_the_address_is_a_400(client: Client, place: str) -> None:
    answer = await client.get("/index/document", params={"doc_id": "a", place: "a\x00b"})
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"
