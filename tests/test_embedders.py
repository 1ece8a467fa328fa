"""Embedders over a real socket: what they are sent, how they fail, and what that costs."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import jsonschema
import numpy as np
import pytest

import indexd
from indexd.app import create_app
from indexd.embedders import prefixes
from indexd.embedders.prefixes import Prefixes
from indexd.errors import ConfigurationError
from indexd.settings import Settings, load
from tests.conftest import Client, Sql, command, document
from tests.fake_embedders import BROKEN, DIMENSION, Fake, Mode, running, vector

pytestmark = pytest.mark.slow

SCHEMA = json.loads(
    (Path(indexd.__file__).parent / "api/os.context.text.embed.schema.json").read_text()
)
TIMEOUT = 2.0
EMBED = {"text": "a text", "namespace": "osctx", "source_ref": "event-abc-123"}

Ask = Callable[[], Any]


def settings_for(fake: Fake, url: str, **rest: Any) -> Settings:
    given: dict[str, Any] = {"embedder_timeout": TIMEOUT, "embedder_model": "all-minilm"} | rest
    return Settings(
        database_url=url,
        pool_size=8,
        pool_timeout_seconds=2,
        embedder_provider=fake.kind,
        embedder_base_url=fake.url,
        **given,
    )


@asynccontextmanager
async def served(fake: Fake, url: str, **rest: Any) -> AsyncIterator[Client]:
    app = create_app(settings_for(fake, url, **rest))
    async with Client(app) as client:
        yield client


@pytest.fixture(params=["ollama", "openai"])
def fake(request: pytest.FixtureRequest) -> Any:
    with running(request.param) as opened:
        yield opened


@pytest.fixture
async def client(fake: Fake, common_url: str, sql: Sql) -> AsyncIterator[Client]:
    """The application with the fake as its embedder, over the common database."""
    async with served(fake, common_url) as opened:
        yield opened


def texts_document(doc_id: str, *texts: str, **rest: Any) -> dict[str, Any]:
    chunks = [{"text": text} for text in texts]
    return {"doc_id": doc_id, "namespace": "notes", "chunks": chunks, **rest}


async def search(client: Client, **body: Any) -> Any:
    response = await client.post("/index/search", json={"namespace": "notes", **body})
    assert response.status_code == 200, response.text
    return response.json()


async def eventually(work: Ask) -> None:
    """Ask again until it answers 200, for as long as the embedder may take to be found again."""
    until = time.monotonic() + 20
    while (response := await work()).status_code != 200:
        assert time.monotonic() < until, response.text


async def test_the_answer_of_embed_text_is_what_its_schema_says(client: Client, fake: Fake) -> None:
    response = await client.post("/embed/text", json=EMBED)
    assert response.status_code == 200, response.text
    answer = response.json()
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.Draft202012Validator(SCHEMA, format_checker=checker).validate(answer)
    assert set(SCHEMA["required"]) == set(SCHEMA["properties"]) == set(answer)
    assert answer["embedding"] == pytest.approx(vector("a text"), abs=1e-6)
    assert answer["embedding_dim"] == DIMENSION == len(answer["embedding"])
    revision = "1b226e2802db" if fake.kind == "ollama" else "all-minilm"
    assert answer["model_revision"] == f"{revision}-{DIMENSION}"
    assert {key: answer[key] for key in EMBED} == EMBED


@pytest.mark.parametrize(
    ("change", "status", "named"),
    [
        ({"text": " \n"}, 400, "text"),
        ({"text": None}, 400, "text"),
        ({"source_ref": ""}, 400, "source_ref"),
        ({"namespace": "vault"}, 422, "chronik, osctx, docs, code, insights"),
        ({"namespace": ""}, 422, "namespace"),
    ],
)
async def test_embed_text_refuses(
    client: Client, change: dict[str, Any], status: int, named: str
) -> None:
    response = await client.post("/embed/text", json=EMBED | change)
    assert response.status_code == status
    assert named in response.json()["error"]


async def test_without_an_embedder_embed_text_is_a_503_and_an_upsert_of_text_a_400(
    own_client: Client,
) -> None:
    response = await own_client.post("/embed/text", json=EMBED)
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert response.json()["code"] == "embedder_unavailable"
    response = await own_client.post("/index/upsert", json=texts_document("a", "a text"))
    assert response.status_code == 400
    assert "no embedder is configured" in response.json()["error"]


async def test_text_goes_in_and_is_found_by_text(client: Client) -> None:
    for doc_id, text in (("a", "red apples are sweet"), ("b", "the server keeps backups")):
        response = await client.post("/index/upsert", json=texts_document(doc_id, text))
        assert response.status_code == 200, response.text
    answer = await search(client, query="sweet red apples")
    assert answer["mode"] == "vector"
    assert answer["results"][0]["doc_id"] == "a"
    expected = np.dot(vector("sweet red apples"), vector("red apples are sweet"))
    assert answer["results"][0]["score"] == pytest.approx(expected, abs=1e-5)
    assert answer["embedding_ms"] > 0


async def test_an_embedding_that_is_sent_wins_over_the_embedder(client: Client, fake: Fake) -> None:
    body = document("a", vector("x"), texts=["y"])
    await client.post("/index/upsert", json=body)
    for place in (
        {"query": {"text": "z", "meta": {"embedding": vector("x")}}},
        {"query": "z", "embedding": vector("x")},
        {"query": "z", "meta": {"embedding": vector("x")}},
    ):
        answer = await search(client, **place)
        assert answer["results"][0]["score"] == pytest.approx(1)
        assert "embedding_ms" not in answer
    assert fake.texts == []
    response = await client.post(
        "/index/search", json={"namespace": "notes", "query": "z", "embedding": None}
    )
    assert response.status_code == 400


async def test_one_changed_paragraph_embeds_one_chunk(client: Client, fake: Fake) -> None:
    paragraphs = ["first paragraph", "second paragraph", "third paragraph"]
    await client.post("/index/upsert", json=texts_document("a", *paragraphs))
    assert sorted(fake.texts) == sorted(paragraphs)
    fake.texts.clear()
    again = await client.post("/index/upsert", json=texts_document("a", *paragraphs))
    assert again.json()["unchanged"] is True
    assert fake.texts == []
    paragraphs[1] = "another paragraph"
    changed = await client.post("/index/upsert", json=texts_document("a", *paragraphs))
    assert changed.json()["unchanged"] is False
    assert fake.texts == ["another paragraph"]
    answer = await search(client, query="third paragraph")
    assert answer["results"][0]["text"] == "third paragraph"
    assert answer["results"][0]["score"] == pytest.approx(1)


async def test_chunks_with_and_without_an_embedding_may_stand_side_by_side(
    client: Client, fake: Fake
) -> None:
    body = texts_document("a", "one", "two")
    body["chunks"][0]["embedding"] = vector("seven")
    response = await client.post("/index/upsert", json=body)
    assert response.status_code == 200, response.text
    assert fake.texts == ["two"]
    body["chunks"][0]["embedding"] = [1, 0]
    response = await client.post("/index/upsert", json=body)
    assert response.json()["code"] == "dimension_mismatch"


async def test_a_chunk_with_neither_text_nor_embedding_is_a_400(client: Client) -> None:
    response = await client.post("/index/upsert", json=texts_document("a", "one", " "))
    assert response.status_code == 400
    assert "a#1" in response.json()["error"]


async def test_a_bulk_embeds_in_bounded_batches(fake: Fake, common_url: str, sql: Sql) -> None:
    fake.delay = 0.02
    lines = [json.dumps(texts_document(f"d{n}", f"text number {n}")) for n in range(100)]
    async with served(fake, common_url, embedder_batch_size=7, embedder_concurrency=3) as client:
        answer = await client.post(
            "/index/bulk",
            content="\n".join(lines),
            headers={"Content-Type": "application/x-ndjson"},
        )
    assert answer.json()["accepted"] == 100
    assert max(fake.batches) == 7
    assert len(fake.texts) == 100
    assert 1 < fake.most_at_once <= 3


async def test_in_a_bulk_a_line_that_cannot_be_embedded_fails_alone(
    client: Client, fake: Fake
) -> None:
    await client.post("/embed/text", json=EMBED)
    fake.become("error")
    lines = [document("a", vector("x")), texts_document("b", "one"), document("c", vector("y"))]
    answer = await bulk(client, *lines)
    assert (answer["accepted"], answer["failed"]) == (2, 1)
    [error] = answer["errors"]
    assert (error["line"], error["doc_id"]) == (2, "b")
    assert error["code"] == "embedder_unavailable"
    assert "status 500" in error["error"]


async def test_a_text_that_the_model_refuses_takes_no_other_line_with_it(
    client: Client, fake: Fake
) -> None:
    fake.refuses = "endless"
    lines = [texts_document("a", "short"), texts_document("b", "endless"), texts_document("c", "x")]
    answer = await bulk(client, *lines)
    assert (answer["accepted"], [e["doc_id"] for e in answer["errors"]]) == (2, ["b"])
    # The embedder is as well as before.
    assert "embedder: ok" in (await client.get("/readyz")).text


async def bulk(client: Client, *lines: dict[str, Any]) -> Any:
    response = await client.post(
        "/index/bulk",
        content="\n".join(map(json.dumps, lines)),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert response.status_code == 200
    return response.json()


@pytest.mark.slow
@pytest.mark.parametrize("mode", BROKEN)
async def test_a_broken_embedder_is_a_503_in_time_that_writes_nothing_and_heals_by_itself(
    client: Client, fake: Fake, sql: Sql, mode: Mode
) -> None:
    await client.post("/index/upsert", json=texts_document("old", "old wine"))
    fake.become(mode)
    asked: list[Ask] = [
        lambda: client.post("/embed/text", json=EMBED),
        lambda: client.post("/index/upsert", json=texts_document("old", "new wine", "and more")),
        lambda: client.post("/index/upsert", json=texts_document("new", "something new")),
        lambda: client.post("/index/search", json={"namespace": "notes", "query": "old wine"}),
        lambda: client.post(
            "/index/search", json={"namespace": "notes", "query": "wine", "mode": "hybrid"}
        ),
    ]
    for ask in asked:
        started = time.monotonic()
        response = await ask()
        took = time.monotonic() - started
        assert response.status_code == 503, response.text
        assert int(response.headers["retry-after"]) >= 1
        body = response.json()
        assert body["code"] == "embedder_unavailable"
        assert len(body["error"]) > len("the embedder failed: ")
        # Within the timeout that is set, give or take a busy machine; `hang` is 30 s.
        assert took < 5 * TIMEOUT
    assert sql("SELECT doc_id, text FROM indexd.chunks") == [("old", "old wine")]
    assert sql("SELECT count(*) FROM indexd.documents") == [(1,)]
    # Who needs no embedder does not notice.
    assert (await search(client, query="wine", mode="lexical"))["results"]
    assert (await search(client, embedding=vector("wine")))["results"]
    kept = await client.post("/index/upsert", json=texts_document("old", "old wine"))
    assert (kept.status_code, kept.json()["unchanged"]) == (200, True)
    fake.become("works")
    await eventually(asked[3])
    for ask in asked:
        assert (await ask()).status_code == 200


async def test_a_slow_embedder_is_waited_for(client: Client, fake: Fake) -> None:
    fake.delay = TIMEOUT / 4
    response = await client.post("/embed/text", json=EMBED)
    assert response.status_code == 200


async def test_a_failure_that_passes_is_not_noticed(client: Client, fake: Fake) -> None:
    await client.post("/embed/text", json=EMBED)
    fake.fail_once = True
    response = await client.post("/embed/text", json=EMBED | {"text": "once more"})
    assert response.status_code == 200
    assert 'index_embed_failures_total{cause="status"} 1.0' in (await client.get("/metrics")).text


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["hang", "refused"])
async def test_a_dead_embedder_costs_no_timeout_once_the_breaker_is_open(
    client: Client, fake: Fake, mode: Mode
) -> None:
    await client.post("/index/upsert", json=texts_document("a", "one"))
    fake.become(mode)
    first = await timed(client)
    rest = sorted([await timed(client) for _ in range(20)])
    assert rest[10] < first / 10
    # The service looks whether it is back while requests are turned away, and at no one's cost;
    # one of twenty may wait for a busy machine.
    assert rest[-2] < first


async def timed(client: Client) -> float:
    started = time.perf_counter()
    response = await client.post("/embed/text", json=EMBED)
    assert response.status_code == 503
    return time.perf_counter() - started


async def test_a_server_starts_without_its_embedder_and_finds_it_later(
    fake: Fake, common_url: str, sql: Sql
) -> None:
    fake.become("refused")
    async with served(fake, common_url) as client:
        response = await client.post("/embed/text", json=EMBED)
        assert response.status_code == 503
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        assert "embedder: degraded (" in ready.text
        fake.become("works")
        await eventually(lambda: client.post("/embed/text", json=EMBED))
        assert "embedder: ok (" in (await client.get("/readyz")).text


async def test_a_query_is_embedded_once(client: Client, fake: Fake) -> None:
    for _ in range(3):
        await search(client, query="the same words")
    assert fake.texts == ["the same words"]
    metrics = (await client.get("/metrics")).text.splitlines()
    assert "index_embed_cache_hits_total 2.0" in metrics
    assert "index_embed_texts_total 1.0" in metrics
    assert "index_embed_batches_total 1.0" in metrics
    assert "index_embed_duration_seconds_count 1.0" in metrics


async def test_the_cache_of_queries_is_bounded(fake: Fake, common_url: str, sql: Sql) -> None:
    async with served(fake, common_url, embedder_cache_size=2) as client:
        for query in ("a", "b", "c", "a", "c"):
            await search(client, query=query)
    assert fake.texts == ["a", "b", "c", "a"]


async def test_a_dimension_that_is_set_is_required(fake: Fake, common_url: str, sql: Sql) -> None:
    async with served(fake, common_url, embedder_dim=DIMENSION + 1) as client:
        response = await client.post("/embed/text", json=EMBED)
        assert response.status_code == 503
        assert f"dimension {DIMENSION}, expected {DIMENSION + 1}" in response.json()["error"]


async def test_a_namespace_of_another_dimension_is_a_503_that_names_both(client: Client) -> None:
    await client.post("/index/upsert", json=document("a", [1, 0]))
    for route, body in (
        ("/index/search", {"namespace": "notes", "query": "one"}),
        ("/index/upsert", texts_document("b", "one")),
    ):
        response = await client.post(route, json=body)
        assert response.status_code == 503
        assert "dimension 8" in response.json()["error"]
        assert "dimension 2" in response.json()["error"]


async def test_a_key_comes_from_a_file_and_shows_nowhere(
    common_url: str, sql: Sql, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "key"
    file.write_text("sk-secret\n")
    with running("openai") as fake:
        fake.key = "sk-secret"
        async with served(fake, common_url, embedder_api_key_file=str(file)) as client:
            assert (await client.post("/embed/text", json=EMBED)).status_code == 200
            fake.key = "sk-another"
            response = await client.post("/embed/text", json=EMBED | {"text": "new"})
            assert response.status_code == 503
            assert "401" in response.json()["error"]
            shown = [response.text, (await client.get("/readyz")).text, *capfd.readouterr()]
    assert "sk-secret" not in "".join(shown)


async def test_an_openai_server_need_not_list_its_models(common_url: str, sql: Sql) -> None:
    with running("openai") as fake:
        fake.lists_models = False
        async with served(fake, common_url) as client:
            assert (await client.post("/embed/text", json=EMBED)).status_code == 200


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_key_file_is_refused_and_no_request_goes_without_a_key(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    environ = {
        "INDEXD_DATABASE_URL": "postgresql://x/y",
        "INDEXD_EMBEDDER_PROVIDER": "openai",
        "INDEXD_EMBEDDER_BASE_URL": "http://localhost:1",
        "INDEXD_EMBEDDER_MODEL": "m",
        "INDEXD_EMBEDDER_API_KEY_FILE": str(file),
    }
    with pytest.raises(ConfigurationError, match=f"embedder_api_key_file: {file} is empty"):
        create_app(load(environ))


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"INDEXD_EMBEDDER_PROVIDER": "magic"}, "embedder_provider"),
        ({"INDEXD_EMBEDDER_PROVIDER": "openai"}, "embedder_base_url"),
        ({"INDEXD_EMBEDDER_PROVIDER": "ollama", "INDEXD_EMBEDDER_BASE_URL": "x"}, "base_url"),
        ({"INDEXD_EMBEDDER_TIMEOUT": "0"}, "embedder_timeout"),
        (
            {
                "INDEXD_EMBEDDER_PROVIDER": "openai",
                "INDEXD_EMBEDDER_BASE_URL": "http://localhost:1",
                "INDEXD_EMBEDDER_MODEL": "m",
                "INDEXD_EMBEDDER_API_KEY_FILE": "/no/such/file",
            },
            "embedder_api_key_file",
        ),
    ],
)
def test_a_wrong_embedder_stops_the_start_by_name(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        create_app(load({"INDEXD_DATABASE_URL": "postgresql://x/y", **environ}))


# What the model is told that a text is


async def test_a_model_without_prefixes_gets_texts_as_they_are(client: Client, fake: Fake) -> None:
    await client.post("/index/upsert", json=texts_document("a", "plain"))
    await search(client, query="question")
    assert fake.texts == ["plain", "question"]


@contextmanager
def named(kind: Literal["ollama", "openai"], model: str) -> Iterator[Fake]:
    with running(kind) as fake:
        fake.model = model
        yield fake


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_a_model_with_prefixes_gets_them_and_says_so_in_its_revision(
    kind: Literal["ollama", "openai"], common_url: str, sql: Sql
) -> None:
    with named(kind, "nomic-embed-text") as fake:
        async with served(fake, common_url, embedder_model="nomic-embed-text") as client:
            await client.post("/index/upsert", json=texts_document("a", "backups"))
            assert (await search(client, query="backups"))["results"]
            answer = (await client.post("/embed/text", json=EMBED)).json()
    assert fake.texts == [
        "search_document: backups",
        "search_query: backups",
        "search_document: a text",
    ]
    assert answer["embedded_as"] == "passage"
    [(revision,)] = sql("SELECT embedding_revision FROM indexd.namespaces")
    assert answer["model_revision"] == f"{revision}-{DIMENSION}"
    digest = "1b226e2802db-" if kind == "ollama" else ""
    assert re.fullmatch(f"{digest}prefixes-[0-9a-f]{{8}}", revision)


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_a_namespace_embedded_without_prefixes_is_told_apart_until_it_is_reembedded(
    kind: Literal["ollama", "openai"], common_url: str, sql: Sql
) -> None:
    with named(kind, "nomic-embed-text") as fake:
        plain = {"embedder_query_prefix": "none", "embedder_passage_prefix": "none"}
        nomic = {"embedder_model": "nomic-embed-text"}
        async with served(fake, common_url, **nomic, **plain) as client:
            await client.post("/index/upsert", json=texts_document("a", "backups"))
            assert (await search(client, query="backups"))["results"]
        assert fake.texts == ["backups", "backups"]
        async with served(fake, common_url, **nomic) as client:
            body = {"namespace": "notes", "query": "backups"}
            for route, sent in (
                ("/index/search", body),
                ("/index/upsert", texts_document("b", "tapes")),
            ):
                response = await client.post(route, json=sent)
                assert response.status_code == 400, response.text
                assert response.json()["code"] == "embedding_model_mismatch"
                assert "indexd reembed" in response.json()["hint"]
            # A client cannot name a revision, and is taken at its word.
            own = document("c", vector("own"), embedding_model="nomic-embed-text")
            assert (await client.post("/index/upsert", json=own)).status_code == 200
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("INDEXD_EMBEDDER_PROVIDER", kind)
            patch.setenv("INDEXD_EMBEDDER_MODEL", "nomic-embed-text")
            patch.setenv("INDEXD_EMBEDDER_BASE_URL", fake.url)
            sql("UPDATE indexd.chunks SET text = 'own' WHERE text = ''")
            await asyncio.to_thread(command, common_url, "reembed", "notes")
        async with served(fake, common_url, **nomic) as client:
            assert (await search(client, query="backups"))["results"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("nomic-embed-text:latest", Prefixes("search_query: ", "search_document: ")),
        ("intfloat/multilingual-e5-large", Prefixes("query: ", "passage: ")),
        ("/models/e5-base-v2/", Prefixes("query: ", "passage: ")),
        ("snowflake-arctic-embed2", Prefixes("query: ")),
        ("Snowflake/snowflake-arctic-embed-l-v2.0", Prefixes("query: ")),
        ("bge-m3", Prefixes()),
        ("thenlper/gte-base", Prefixes()),
        ("all-minilm", Prefixes()),
        ("text-embedding-3-small", Prefixes()),
    ],
)
def test_prefixes_go_by_the_name_of_the_model(model: str, expected: Prefixes) -> None:
    assert prefixes.of(model) == expected


@pytest.mark.parametrize(
    ("model", "query"),
    [
        ("BAAI/bge-large-en-v1.5", "Represent this sentence for searching relevant passages: "),
        ("mxbai-embed-large", "Represent this sentence for searching relevant passages: "),
        (
            "snowflake-arctic-embed:335m",
            "Represent this sentence for searching relevant passages: ",
        ),
        (
            "intfloat/multilingual-e5-large-instruct",
            "Instruct: Given a web search query, retrieve relevant passages that answer the query"
            "\nQuery: ",
        ),
    ],
)
def test_some_models_have_a_prefix_for_queries_alone(model: str, query: str) -> None:
    assert prefixes.of(model) == Prefixes(query)


def test_settings_name_other_prefixes() -> None:
    assert prefixes.chosen("bge-m3", "q: ", None) == Prefixes("q: ")
    assert prefixes.chosen("e5-small", "none", None) == Prefixes("", "passage: ")
