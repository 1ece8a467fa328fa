"""From one model to another: resumable, searchable all the while, and at once at the end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import psycopg
import pytest
from click.testing import CliRunner
from psycopg.pq import TransactionStatus

from indexd import embedders, reembed
from indexd.cli import commands
from indexd.db.sessions import maintenance
from indexd.embedders import Embedder
from indexd.errors import EmbedderUnavailable, InvalidRequest, NotFound
from indexd.settings import Settings
from indexd.telemetry.metrics import Metrics
from tests.conftest import Client, document
from tests.fake_embedders import Fake, running, vector
from tests.test_embedders import bulk, search, served, settings_for, texts_document
from tests.test_serve import serving

pytestmark = pytest.mark.slow

TEXTS = [f"text number {n}" for n in range(60)]
NEW = "ffffffffffff"


@pytest.fixture
def old() -> Any:
    with running("ollama") as opened:
        yield opened


@pytest.fixture
def new() -> Any:
    """Another server with other weights under the same name, and another dimension."""
    with running("ollama") as opened:
        opened.digest, opened.dimension = NEW, 12
        yield opened


@pytest.fixture
async def client(old: Fake, url: str) -> AsyncIterator[Client]:
    async with served(old, url) as opened:
        await bulk(opened, *(texts_document(f"d{n}", text) for n, text in enumerate(TEXTS)))
        yield opened


@asynccontextmanager
async def tools(fake: Fake, url: str, **rest: Any) -> AsyncIterator[tuple[Any, Any, Settings]]:
    # These are not about timeouts: a busy machine may take its time.
    rest = {"embedder_timeout": 30, "embedder_batch_size": 4, "embedder_concurrency": 1} | rest
    settings = settings_for(fake, url, **rest)
    embedder = embedders.of(settings, Metrics())
    assert embedder is not None
    async with embedder, maintenance(url, "indexd reembed") as connection:
        yield connection, embedder, settings


async def run(fake: Fake, url: str, namespace: str = "notes", **rest: Any) -> reembed.Outcome:
    async with tools(fake, url, **rest) as (connection, embedder, settings):
        return await reembed.run(connection, embedder, settings, namespace, lambda *_: None)


async def test_all_chunks_get_the_new_vectors_and_the_namespace_the_new_name(
    client: Client, old: Fake, new: Fake, url: str, clone: psycopg.Connection[Any]
) -> None:
    outcome = await run(new, url)
    assert outcome.chunks == len(TEXTS)
    assert sorted(new.texts) == sorted(TEXTS)
    row = clone.execute("SELECT dimension, embedding_revision FROM indexd.namespaces").fetchone()
    assert row == (12, NEW)
    assert clone.execute("SELECT count(*) FROM indexd.reembedded").fetchone() == (0,)
    [first, *_] = (await search(client, embedding=vector(TEXTS[7], 12)))["results"]
    assert (first["text"], first["score"]) == (TEXTS[7], pytest.approx(1))
    # The service has the old model still, and says so.
    response = await client.post("/index/search", json={"namespace": "notes", "query": "text"})
    assert NEW in response.json()["error"]
    async with served(new, url) as renewed:
        assert (await search(renewed, query=TEXTS[7]))["results"][0]["text"] == TEXTS[7]
        answer = await renewed.post("/index/upsert", json=texts_document("d7", TEXTS[7]))
        assert answer.json()["unchanged"] is True


async def test_a_run_that_is_cut_off_is_taken_up_and_changed_nothing(
    client: Client, new: Fake, url: str
) -> None:
    before = await search(client, query=TEXTS[3])
    new.breaks_after = 30
    with pytest.raises(EmbedderUnavailable):
        await run(new, url)
    assert 0 < len(new.texts) < len(TEXTS)
    assert (await search(client, query=TEXTS[3]))["results"] == before["results"]
    new.breaks_after = None
    kept = set(new.texts[:16])
    new.texts.clear()
    await run(new, url)
    assert not kept & set(new.texts)
    assert len(new.texts) < len(TEXTS)


async def test_what_was_begun_with_another_model_is_not_used(
    client: Client, new: Fake, url: str
) -> None:
    new.breaks_after = 30
    with pytest.raises(EmbedderUnavailable):
        await run(new, url)
    new.breaks_after, new.digest, new.dimension = None, "e" * 64, 16
    new.texts.clear()
    await run(new, url)
    assert sorted(new.texts) == sorted(TEXTS)


@pytest.mark.parametrize("indexed", [False, True])
async def test_it_is_searched_and_written_to_all_the_while(
    old: Fake,
    new: Fake,
    url: str,
    clone: psycopg.Connection[Any],
    tmp_path: Path,
    indexed: bool,
) -> None:
    # The same dimension, so that a mixture would not be noticed by anything but its order.
    new.dimension, new.delay, new.turned = 8, 0.01, True
    environ = {
        "INDEXD_EMBEDDER_PROVIDER": "ollama",
        "INDEXD_EMBEDDER_BASE_URL": old.url,
        "INDEXD_EMBEDDER_MODEL": "all-minilm",
    }
    clone.autocommit = True
    query = vector("text number 5")
    stop = threading.Event()

    def keep_searching(client: httpx.Client) -> list[list[str]]:
        seen = []
        while not stop.is_set():
            seen.append(order(client, query))
        return seen

    def keep_writing(client: httpx.Client) -> int:
        taken = 0
        while not stop.wait(0.02):
            answer = client.post(
                "/index/upsert", json=texts_document(f"x{taken}", f"another {taken}")
            )
            assert answer.status_code == 200 or NEW in answer.json()["error"], answer.text
            taken += answer.status_code == 200
        return taken

    with serving(tmp_path, "--database-url", url, **environ) as (client, _):
        for n, text in enumerate(TEXTS):
            client.post("/index/upsert", json=texts_document(f"d{n}", text)).raise_for_status()
        if indexed:
            clone.execute("UPDATE indexd.namespaces SET index_mode = 'always'")
        old_order = order(client, query)
        searching = asyncio.create_task(asyncio.to_thread(keep_searching, client))
        writing = asyncio.create_task(asyncio.to_thread(keep_writing, client))
        try:
            await run(new, url)
        finally:
            stop.set()
        seen, taken = await searching, await writing
        new_order = order(client, query)
    assert old_order != new_order
    assert [found for found in seen if found not in (old_order, new_order)] == []
    assert old_order in seen
    assert taken > 0
    rows = clone.execute("SELECT text, embedding::text FROM indexd.chunks").fetchall()
    assert len(rows) == len(TEXTS) + taken
    for text, embedding in rows:
        made = [float(number) for number in embedding.strip("[]").split(",")]
        assert made == pytest.approx(vector(text)[::-1], abs=1e-5)
    indexes = clone.execute("SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'hnsw%'")
    assert indexes.fetchone() == (int(indexed),)


def order(client: httpx.Client, query: list[float]) -> list[str]:
    """Of the texts that were there from the beginning."""
    answer = client.post(
        "/index/search", json={"namespace": "notes", "embedding": query, "k": 100}
    ).raise_for_status()
    found = [result["doc_id"] for result in answer.json()["results"]]
    return [doc_id for doc_id in found if doc_id.startswith("d")][:30]


LAST_STEP = 12
"""Texts in the last step of a pass: 60 go in steps of 16, four batches of 4."""


class Watched:
    """An embedder that does something while it embeds, such as looking at who is shut out."""

    only = None

    def __init__(self, embedder: Any, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._embedder = embedder
        self._meanwhile = meanwhile

    async def contact(self) -> Any:
        return await self._embedder.contact()

    async def embed(self, texts: list[str]) -> Any:
        await self._meanwhile()
        return await self._embedder.embed(texts)


@pytest.mark.parametrize("slipping", [0, 3])
async def test_the_embedder_is_never_asked_while_writers_are_shut_out(
    client: Client, new: Fake, url: str, clone: psycopg.Connection[Any], slipping: int
) -> None:
    """Also where documents are written in the last passes, which the cut-over has to wait for."""
    clone.autocommit = True
    states: list[TransactionStatus] = []
    written = 0
    async with tools(new, url) as (connection, embedder, settings):

        async def meanwhile() -> None:
            nonlocal written
            states.append(connection.info.transaction_status)
            clone.execute("SELECT FROM indexd.namespaces FOR KEY SHARE NOWAIT")
            if len(new.texts) >= len(TEXTS) - LAST_STEP and written < slipping:
                # Before all others, where the pass that is under way does not look again.
                written += 1
                body = texts_document(f"a{written}", f"slipped in {written}")
                (await client.post("/index/upsert", json=body)).raise_for_status()

        watched = cast(Embedder, Watched(embedder, meanwhile))
        outcome = await reembed.run(connection, watched, settings, "notes", lambda *_: None)
    assert outcome.chunks == len(TEXTS) + slipping
    assert written == slipping
    assert set(states) == {TransactionStatus.IDLE}


async def test_a_namespace_that_is_always_written_to_pauses_its_writers_and_is_done(
    client: Client,
    new: Fake,
    url: str,
    clone: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reembed, "PATIENCE_SECONDS", 0.0)
    clone.autocommit = True
    answers: list[httpx.Response] = []
    async with tools(new, url) as (connection, embedder, settings):

        async def meanwhile() -> None:
            clone.execute("SELECT FROM indexd.namespaces FOR KEY SHARE NOWAIT")
            if len(new.texts) >= len(TEXTS) - LAST_STEP:
                body = texts_document(f"a{len(answers)}", f"slipped in {len(answers)}")
                answers.append(await client.post("/index/upsert", json=body))

        watched = cast(Embedder, Watched(embedder, meanwhile))
        outcome = await reembed.run(connection, watched, settings, "notes", lambda *_: None)
    taken = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert outcome.chunks == len(TEXTS) + len(taken)
    assert {answer.status_code for answer in refused} == {503}
    assert {answer.json()["code"] for answer in refused} == {"writes_paused"}
    assert all("Retry-After" in answer.headers for answer in refused)
    assert clone.execute("SELECT writes_paused_until FROM indexd.namespaces").fetchall() == [
        (None,)
    ]
    # The new model is wanted now, and no pause holds anyone off.
    async with served(new, url) as renewed:
        answer = await renewed.post("/index/upsert", json=texts_document("z", "after all"))
        assert answer.status_code == 200, answer.text


async def test_a_pause_ends_with_a_run_that_fails(
    client: Client, new: Fake, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembed, "PATIENCE_SECONDS", 0.0)
    slipped = 0
    async with tools(new, url) as (connection, embedder, settings):

        async def meanwhile() -> None:
            nonlocal slipped
            if len(new.texts) >= len(TEXTS) - LAST_STEP and not slipped:
                slipped += 1
                body = texts_document("a", "slipped in")
                (await client.post("/index/upsert", json=body)).raise_for_status()
                new.breaks_after = len(TEXTS)

        watched = cast(Embedder, Watched(embedder, meanwhile))
        with pytest.raises(EmbedderUnavailable):
            await reembed.run(connection, watched, settings, "notes", lambda *_: None)
    answer = await client.post("/index/upsert", json=texts_document("b", "another"))
    assert answer.status_code == 200, answer.text


async def test_chunks_without_a_text_cannot_be_embedded_anew(
    client: Client, new: Fake, url: str
) -> None:
    await client.post("/index/upsert", json=document("bare", vector("x")))
    with pytest.raises(InvalidRequest, match="1 chunks without a text"):
        await run(new, url)
    assert new.texts == []


async def test_an_unknown_namespace_is_refused(client: Client, new: Fake, url: str) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await run(new, url, "nowhere")


async def test_the_command_tells_what_it_would_do_and_does_it(
    client: Client, new: Fake, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("DATABASE_URL", url),
        ("EMBEDDER_PROVIDER", "ollama"),
        ("EMBEDDER_BASE_URL", new.url),
        ("EMBEDDER_MODEL", "all-minilm"),
    ):
        monkeypatch.setenv(f"INDEXD_{name}", value)

    async def typed(*arguments: str) -> str:
        outcome = await asyncio.to_thread(
            CliRunner().invoke, commands, ["reembed", "notes", *arguments], catch_exceptions=False
        )
        assert outcome.exit_code == 0, outcome.output
        return outcome.output

    said = await typed("--dry-run")
    assert "60 texts, 0 of them done, from all-minilm@1b226e2802db" in said
    assert "60 chunks are of all-minilm@ffffffffffff now" in await typed()
