"""What a body within its limit may cost: nothing it holds stops or fells the server."""

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexd.api import large_bodies
from indexd.api.json_body import decoded
from indexd.api.routes.documents import checked
from indexd.api.structs import SearchIn, UpsertIn
from indexd.app import create_app
from indexd.errors import IndexdError
from indexd.load.large_work import LARGE
from indexd.settings import Settings
from tests.conftest import Client, Sql, document
from tests.test_serve import external, serving

pytestmark = pytest.mark.slow

__all__ = ["external"]

SETTINGS = Settings()
UPSERT: msgspec.json.Decoder[Any] = msgspec.json.Decoder(UpsertIn)
HEAD = b'{"doc_id":"a","namespace":"notes","chunks":[{"text":"t","embedding":[1,0]}],'
JSON = {"Content-Type": "application/json"}


def many(part: bytes, times: int) -> bytes:
    return b"[" + part * times + b"0]"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (HEAD + b'"meta":{"a":' + many(b"0,", 20_000_000) + b"}}", "meta: expected at most 10000"),
        (HEAD + b'"meta":{"a":' + many(b"[],", 9_000_000) + b"}}", "arrays and objects"),
        (HEAD + b'"meta":{"a":' + many(b'"",', 9_000_000) + b"}}", "texts"),
        (b'{"doc_id":"a","chunks":' + many(b"{},", 9_000_000) + b"}", "arrays and objects"),
        (HEAD[:-2] + b',{"embedding":' + many(b"0,", 9_000_000) + b"}]}", "embedding is not valid"),
        (HEAD + b'"meta":{"a":"' + b"x" * 2**20 + b'"}}', "meta: expected at most 1048576 bytes"),
    ],
    ids=["numbers", "arrays", "texts", "chunks", "embedding", "bytes"],
)
async def test_a_body_that_would_take_gigabytes_is_refused_and_says_why(
    client: Client, sql: Sql, body: bytes, says: str
) -> None:
    answer = await client.post("/index/upsert", content=body, headers=JSON)
    assert answer.status_code == 400
    assert says in answer.json()["error"]
    assert sql("SELECT count(*) FROM indexd.documents") == [(0,)]


async def test_a_search_has_such_a_limit_as_well(client: Client) -> None:
    for key in ("meta", "filters"):
        value = b'{"meta":{"a":' + many(b"0,", 9_000_000) + b"}}"
        body = b'{"query":"x","%s":%s}' % (key.encode(), value)
        answer = await client.post("/index/search", content=body, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")


def test_a_large_body_stops_no_other_request_and_keeps_no_memory(
    tmp_path: Path, external: str
) -> None:
    """Its own work goes on in a thread: others wait for parts of it, never for all."""
    arrays = HEAD + b'"meta":{"a":' + many(b"[],", 20_000_000) + b"}}"
    vectors = np.random.default_rng(7).random((2_000, 384)).round(6)
    whole = json.dumps(document("b", *vectors)).encode()

    async def longest_wait(base_url: str, body: bytes) -> float:
        async with httpx.AsyncClient(base_url=base_url, timeout=120) as web:
            sending = asyncio.create_task(web.post("/index/upsert", content=body, headers=JSON))
            longest = 0.0
            while not sending.done():
                began = time.perf_counter()
                await web.get("/healthz")
                longest = max(longest, time.perf_counter() - began)
            assert (await sending).status_code in (200, 400)
            return longest

    with serving(tmp_path, "--database-url", external) as (client, process):
        program = psutil.Process(process.pid)
        client.post("/index/upsert", json=document("a", [1, 0]))
        before = program.memory_info().rss
        for body in (whole, arrays):
            assert asyncio.run(longest_wait(str(client.base_url), body)) < 2
        assert program.memory_info().rss - before < 400 * 2**20


TAGS = [
    (["x" * 513], "chunks[0].meta.tags[0]: expected at most 512 characters, got 513"),
    (["a", "/" * 32], "chunks[0].meta.tags[1]: expected at most 32 segments, got 33"),
    (["a"] * 257, "chunks[0].meta.tags: expected at most 256, got 257"),
]


@pytest.mark.parametrize(("tags", "says"), TAGS)
async def test_tags_have_limits_and_say_them(client: Client, tags: list[str], says: str) -> None:
    answer = await client.post("/index/upsert", json=document("a", [1, 0], metas=[{"tags": tags}]))
    assert (answer.status_code, answer.json()["error"]) == (400, says)


async def test_tags_within_the_limits_cost_little(client: Client, sql: Sql) -> None:
    deepest = ["/".join(f"{place:03}{depth:02}" for depth in range(32)) for place in range(256)]
    sent = document("a", [1, 0], metas=[{"tags": deepest}])
    began = time.perf_counter()
    assert (await client.post("/index/upsert", json=sent)).status_code == 200
    assert time.perf_counter() - began < 5
    assert sql("SELECT cardinality(filter_keys) FROM indexd.chunks") == [(256 * 32,)]


async def test_each_limit_is_a_setting(settings: Settings) -> None:
    for name, value, meta in (
        ("max_meta_bytes", 20, {"a": "x" * 30}),
        ("max_meta_values", 3, {"a": [1, 2, 3]}),
        ("max_tags", 1, {"tags": ["a", "b"]}),
        ("max_tag_chars", 2, {"tags": ["abc"]}),
        ("max_tag_segments", 1, {"tags": ["a/b"]}),
    ):
        tight = msgspec.structs.replace(settings, **{name: value})
        async with Client(create_app(tight)) as client:
            answer = await client.post("/index/upsert", json=document("a", [1, 0], metas=[meta]))
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field"), name
            line = json.dumps(document("a", [1, 0], metas=[meta]))
            headers = {"Content-Type": "application/x-ndjson"}
            answer = await client.post("/index/bulk", content=line, headers=headers)
            assert answer.json()["failed"] == 1, name
            assert (await client.get("/index/stats")).json()["total_documents"] == 0


async def test_a_long_line_of_a_bulk_is_an_error_of_that_line(client: Client) -> None:
    bad = HEAD + b'"meta":{"a":' + many(b"[],", 4_000_000) + b"}}"
    good = json.dumps(document("b", [1, 0])).encode()
    headers = {"Content-Type": "application/x-ndjson"}
    answer = await client.post("/index/bulk", content=bad + b"\n" + good, headers=headers)
    assert (answer.json()["accepted"], answer.json()["failed"]) == (1, 1)
    assert answer.json()["errors"][0]["code"] == "invalid_field"


async def test_all_tags_of_a_document_together_have_a_bound(client: Client) -> None:
    tag = "/".join("a" * 32)
    chunks = [{"embedding": [1, 0], "meta": {"tags": [tag] * 200}}] * 100
    answer = await client.post("/index/upsert", json={"doc_id": "a", "chunks": chunks})
    assert answer.status_code == 400
    assert "segments of tags in all" in answer.json()["error"]


async def test_what_each_chunk_gets_of_its_document_has_a_bound(client: Client, sql: Sql) -> None:
    chunks = [{"embedding": [1, 0]}] * 200
    tag = "/".join("a" * 32)
    for meta, says in (
        ({"tags": [tag] * 100}, "segments of tags in all, got 640000"),
        (
            {"a": "x" * 400_000},
            "meta: expected at most 335544 bytes of JSON in a document of 200 chunks, got 400008",
        ),
    ):
        body = {"doc_id": "a", "namespace": "notes", "chunks": chunks, "meta": meta}
        answer = await client.post("/index/upsert", json=body)
        assert answer.status_code == 400
        assert says in answer.json()["error"]
        one = await client.post("/index/upsert", json=body | {"chunks": chunks[:1]})
        assert one.status_code == 200, one.text
    assert sql("SELECT count(*) FROM indexd.chunk_fields") == [(1,)]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
VECTOR = st.lists(st.integers(-2, 2), max_size=3) | PLAIN
CHUNK = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=3) | st.integers(),
        "text": st.text(max_size=20) | st.integers(),
        "embedding": VECTOR,
        "meta": PLAIN
        | st.fixed_dictionaries({}, optional={"embedding": VECTOR, "tags": PLAIN, "k": PLAIN}),
    },
)
DOCUMENT = st.fixed_dictionaries(
    {"doc_id": st.text(max_size=3), "chunks": st.lists(CHUNK, max_size=3) | PLAIN},
    optional={"meta": PLAIN, "namespace": st.text(max_size=3), "half_life_seconds": PLAIN},
)


@given(sent=DOCUMENT)
@hypothesis_settings(max_examples=400, deadline=None, derandomize=True, database=None)
def test_a_large_body_means_what_a_small_one_means(sent: Any) -> None:
    body = json.dumps(sent).encode()

    def outcome(decode: Any) -> Any:
        try:
            made = checked(decode(body), SETTINGS)
        except IndexdError as error:
            return error.code
        return made.digest(), made.namespace, made.doc_id, [chunk.tags for chunk in made.chunks]

    small = outcome(lambda body: decoded(body, UPSERT))
    big = outcome(lambda body: large_bodies.decode(body, UPSERT, SETTINGS))
    # Of several faults either may be named first.
    assert big == small or (isinstance(big, str) and isinstance(small, str))


@given(value=PLAIN)
@hypothesis_settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_what_stands_in_a_body_is_counted_without_its_texts(value: Any) -> None:
    def walk(value: Any) -> tuple[int, int, int]:
        if isinstance(value, str):
            return 0, 1, 0
        if not isinstance(value, (list, dict)):
            return 0, 0, 0
        inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        parts = [walk(one) for one in inner]
        sums = [sum(column) for column in zip(*parts, strict=True)] or [0, 0, 0]
        return 1 + sums[0], sums[1], max(0, len(value) - 1) + sums[2]

    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        assert large_bodies.count(text.encode()) == walk(value)


def test_the_fault_of_a_large_body_has_its_place() -> None:
    filling = "x" * LARGE
    for sent, says in (
        ({"doc_id": "a", "chunks": [{"text": filling}, {"text": 1}]}, "chunks[1].text: expected"),
        ({"doc_id": "a", "chunks": [{"text": filling, "meta": 3}]}, "chunks[0].meta: expected"),
        ({"doc_id": "a", "chunks": [{"text": filling + "\0"}]}, "NUL"),
        ({"doc_id": "a", "chunks": [{"text": filling, "meta": {"a": "\0"}}]}, "NUL"),
        ({"doc_id": 1, "chunks": [{"text": filling}]}, "doc_id: expected"),
        ({"doc_id": "a", "chunks": [{"id": "c", "text": filling, "embedding": [0]}]}, "chunk 'c'"),
    ):
        with pytest.raises(IndexdError, match=re.escape(says)):
            large_bodies.decode(json.dumps(sent).encode(), UPSERT, SETTINGS)
    wrong: msgspec.json.Decoder[Any] = msgspec.json.Decoder(SearchIn)
    with pytest.raises(IndexdError, match="k: expected"):
        large_bodies.decode(json.dumps({"query": filling, "k": "x"}).encode(), wrong, SETTINGS)
