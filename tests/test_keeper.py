"""The index keeper: who gets an index, who loses it, and what a build may not disturb."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from indexd.app import create_app
from indexd.background import index_keeper
from indexd.cli import commands
from indexd.db.sessions import maintenance
from indexd.errors import NotFound
from indexd.settings import Settings
from indexd.store import indexes
from indexd.store.indexes import Index, Namespace, Rules
from tests.conftest import Client, command, document

pytestmark = pytest.mark.slow

Admin = psycopg.AsyncConnection[Any]

RULES = Rules(threshold=100, limit=32, worn_share=0.2, m=8, ef_construction=32)


@pytest.fixture
async def admin(url: str) -> AsyncIterator[Admin]:
    async with maintenance(url, "indexd keeper") as connection:
        yield connection


@asynccontextmanager
async def serving(settings: Settings, **changes: Any) -> AsyncIterator[Client]:
    changed = msgspec.structs.replace(settings, keeper_interval_seconds=0.1, **changes)
    async with Client(create_app(changed)) as client:
        yield client


async def fill(client: Client, namespace: str, vectors: NDArray[Any], first: int = 0) -> None:
    lines = [
        msgspec.json.encode(document(f"d{first + n}", vector, namespace=namespace))
        for n, vector in enumerate(vectors)
    ]
    answer = await client.post(
        "/index/bulk",
        content=b"\n".join(lines),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert answer.json()["accepted"] == len(vectors)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 (the event is in another process)
            await asyncio.sleep(0.05)


async def index_of(client: Client, namespace: str) -> str:
    details = (await client.get("/index/stats")).json()["details"]
    index: str = details[namespace]["index"]
    return index


async def valid_indexes(admin: Admin) -> list[str]:
    return sorted(
        index.name
        for namespace in await indexes.look(admin)
        for index in namespace.indexes
        if index.valid
    )


async def test_a_namespace_earns_an_index_by_size_and_loses_it_when_it_shrank(
    settings: Settings, rng: np.random.Generator
) -> None:
    async with serving(settings, index_threshold=100) as client:
        await fill(client, "notes", rng.normal(size=(99, 4)))
        await fill(client, "few", rng.normal(size=(10, 3)))
        await asyncio.sleep(0.5)
        assert await index_of(client, "notes") == "exact"
        await fill(client, "notes", rng.normal(size=(1, 4)), first=99)
        assert await index_of(client, "notes") in ("building", "hnsw")

        async def serves() -> bool:
            return await index_of(client, "notes") == "hnsw"

        await until(serves)
        assert await index_of(client, "few") == "exact"
        for n in range(50):
            await client.post("/index/delete", json={"doc_id": f"d{n}", "namespace": "notes"})
        await asyncio.sleep(0.5)
        assert await index_of(client, "notes") == "hnsw"
        await client.post("/index/delete", json={"doc_id": "d50", "namespace": "notes"})

        async def is_gone() -> bool:
            return await index_of(client, "notes") == "exact"

        await until(is_gone)


async def test_an_index_whose_build_was_cut_off_is_built_again(
    own_client: Client, admin: Admin, url: str, rng: np.random.Generator
) -> None:
    await fill(own_client, "notes", rng.normal(size=(200, 4)))
    async with (
        maintenance(url, "indexd keeper") as doomed,
        maintenance(url, "indexd keeper") as blocker,
    ):
        # A build waits for the transactions that could still see what it does not.
        await blocker.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await blocker.execute("SELECT count(*) FROM indexd.chunks")
        build = asyncio.create_task(index_keeper.keep_once(doomed, RULES))

        async def is_there() -> bool:
            return any(namespace.indexes for namespace in await indexes.look(admin))

        await until(is_there)
        await admin.execute("SELECT pg_terminate_backend(%s)", (doomed.info.backend_pid,))
        with pytest.raises(psycopg.Error):
            await build
        await blocker.execute("COMMIT")
    assert [(one.serving, one.indexes[0].valid) for one in await indexes.look(admin)] == [
        (None, False)
    ]
    await index_keeper.keep_once(admin, RULES)
    [found] = await indexes.look(admin)
    assert found.serving
    assert len(found.indexes) == 1


async def test_searches_see_the_invalid_index_as_none(
    own_client: Client, admin: Admin, rng: np.random.Generator
) -> None:
    vectors = rng.normal(size=(200, 4))
    await fill(own_client, "notes", vectors)
    await index_keeper.keep_once(admin, RULES)
    await admin.execute("SET allow_system_table_mods = on")
    await admin.execute(
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = (SELECT oid FROM pg_class WHERE relname LIKE 'hnsw_%')"
    )
    answer = await own_client.post(
        "/index/search", json={"namespace": "notes", "embedding": vectors[7].tolist(), "k": 1}
    )
    assert answer.json()["results"][0]["doc_id"] == "d7"
    assert await index_of(own_client, "notes") == "exact"


async def serves(admin: Admin, namespace: str = "notes") -> bool:
    """What the namespace's row says of its index."""
    found = await admin.execute(
        "SELECT index_serves FROM indexd.namespaces WHERE namespace = %s", [namespace]
    )
    [said] = await found.fetchone() or (None,)
    assert isinstance(said, bool)
    return said


async def test_the_row_of_a_namespace_says_whether_its_index_serves(
    own_client: Client, admin: Admin, url: str, rng: np.random.Generator
) -> None:
    await fill(own_client, "notes", rng.normal(size=(100, 3)))
    assert not await serves(admin)
    await index_keeper.keep_once(admin, RULES)
    assert await serves(admin)
    # Somebody drops it by hand, or an interrupted statement breaks it.
    never = msgspec.structs.replace(RULES, threshold=1_000)
    for harm in (
        f"DROP INDEX indexd.{indexes.index_name('notes', 3)}",
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = (SELECT oid FROM pg_class WHERE relname LIKE 'hnsw_%')",
    ):
        await admin.execute("SET allow_system_table_mods = on")
        await admin.execute(harm)
        await index_keeper.keep_once(admin, never)
        assert not await serves(admin)
        await index_keeper.keep_once(admin, RULES)
        assert await serves(admin)
    await asyncio.to_thread(command, url, "index", "drop", "notes")
    assert not await serves(admin)
    await asyncio.to_thread(command, url, "index", "build", "notes")
    assert await serves(admin)


async def test_the_row_of_a_namespace_says_no_from_the_moment_that_the_dimension_is_another(
    own_client: Client, admin: Admin, rng: np.random.Generator
) -> None:
    await fill(own_client, "notes", rng.normal(size=(100, 3)))
    await index_keeper.keep_once(admin, RULES)
    [stale] = await indexes.look(admin)
    for n in range(100):
        await own_client.post("/index/delete", json={"doc_id": f"d{n}", "namespace": "notes"})
    await fill(own_client, "notes", rng.normal(size=(1, 5)))
    assert not await serves(admin)
    # A keeper that looked before the change does not take it back.
    await indexes.note_serves(admin, stale, serves=True)
    assert not await serves(admin)


async def test_the_largest_win_where_there_may_be_few(
    own_client: Client, admin: Admin, rng: np.random.Generator
) -> None:
    for name, size in (("small", 120), ("large", 200), ("middle", 150)):
        await fill(own_client, name, rng.normal(size=(size, 3)))
    await index_keeper.keep_once(admin, msgspec.structs.replace(RULES, limit=2))
    assert await valid_indexes(admin) == sorted(
        [indexes.index_name("large", 3), indexes.index_name("middle", 3)]
    )


async def test_a_new_dimension_gets_a_new_index(
    own_client: Client, admin: Admin, rng: np.random.Generator
) -> None:
    await fill(own_client, "notes", rng.normal(size=(100, 3)))
    await index_keeper.keep_once(admin, RULES)
    for n in range(100):
        await own_client.post("/index/delete", json={"doc_id": f"d{n}", "namespace": "notes"})
    await fill(own_client, "notes", rng.normal(size=(100, 5)))
    await index_keeper.keep_once(admin, RULES)
    assert await valid_indexes(admin) == [indexes.index_name("notes", 5)]


async def test_vectors_too_long_for_an_index_are_scanned_and_stats_say_so(
    settings: Settings, rng: np.random.Generator
) -> None:
    async with serving(settings, index_threshold=2) as client:
        await fill(client, "wide", rng.normal(size=(3, 4001)))
        details = (await client.get("/index/stats")).json()["details"]["wide"]
        assert details["index"] == "exact"
        assert details["index_note"] == "dimension over 4,000: always scanned"


def test_an_index_that_serves_stays_until_half_the_threshold() -> None:
    def earns(chunks: int, *, serving: bool) -> bool:
        built = (Index(indexes.index_name("a", 3), True, None),) if serving else ()
        return bool(indexes.earning([Namespace("a", 3, chunks, "auto", built)], RULES))

    assert [earns(n, serving=False) for n in (99, 100)] == [False, True]
    assert [earns(n, serving=True) for n in (49, 50)] == [False, True]


async def test_a_worn_index_is_built_anew_while_it_serves(
    own_client: Client, admin: Admin, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "FEW_DEAD", 10)
    vectors = rng.normal(size=(400, 4))
    await fill(own_client, "notes", vectors)
    await index_keeper.keep_once(admin, RULES)

    async def oid() -> Any:
        cursor = await admin.execute("SELECT oid FROM pg_class WHERE relname LIKE 'hnsw_%'")
        return await cursor.fetchall()

    built = await oid()
    for n in range(80):
        await own_client.post("/index/delete", json={"doc_id": f"d{n}", "namespace": "notes"})
    await index_keeper.keep_once(admin, RULES)
    assert await oid() == built
    await fill(own_client, "notes", vectors[80:90] + 1, first=80)
    await index_keeper.keep_once(admin, RULES)
    rebuilt = await oid()
    assert len(rebuilt) == 1
    assert rebuilt != built
    assert [(one.serving is not None, one.dead) for one in await indexes.look(admin)] == [(True, 0)]
    await index_keeper.keep_once(admin, RULES)
    assert await oid() == rebuilt


async def test_one_keeper_works_at_a_time(admin: Admin, url: str) -> None:
    async with maintenance(url, "indexd keeper") as other:
        async with index_keeper.lock(admin, 0.05):
            waiting = asyncio.create_task(_hold(other))
            await asyncio.sleep(0.3)
            assert not waiting.done()
        await asyncio.wait_for(waiting, 5)


async def _hold(connection: Admin) -> None:
    async with index_keeper.lock(connection, 0.05):
        pass


async def test_a_build_disturbs_neither_writers_nor_searches(
    settings: Settings, admin: Admin, rng: np.random.Generator
) -> None:
    vectors = rng.normal(size=(8, 150, 16))
    async with serving(settings, index_threshold=300) as client:

        async def work(worker: int) -> None:
            for n, vector in enumerate(vectors[worker]):
                body = document(f"w{worker}-{n}", vector)
                answer = await client.post("/index/upsert", json=body)
                assert answer.status_code == 200, answer.text
                answer = await client.post(
                    "/index/search",
                    json={"namespace": "notes", "embedding": vector.tolist(), "k": 1},
                )
                assert answer.status_code == 200, answer.text
                assert answer.json()["results"][0]["doc_id"] == f"w{worker}-{n}"

        await asyncio.gather(*(work(worker) for worker in range(8)))

        async def serves() -> bool:
            return await index_of(client, "notes") == "hnsw"

        await until(serves)
        for worker, n in ((0, 0), (3, 77), (7, 149)):
            answer = await client.post(
                "/index/search",
                json={"namespace": "notes", "embedding": vectors[worker, n].tolist(), "k": 1},
            )
            assert answer.json()["results"][0]["doc_id"] == f"w{worker}-{n}"
    cursor = await admin.execute("SELECT count(*) FROM indexd.chunks")
    assert await cursor.fetchone() == (1200,)


async def test_an_admin_builds_drops_and_looks(
    own_client: Client, url: str, rng: np.random.Generator
) -> None:
    await fill(own_client, "notes", rng.normal(size=(30, 3)))
    run = asyncio.to_thread
    assert "exact" in await run(command, url, "index", "status")
    await run(command, url, "index", "build", "notes")
    assert await index_of(own_client, "notes") == "hnsw"
    assert "hnsw" in await run(command, url, "index", "status")
    await run(command, url, "index", "drop", "notes")
    assert await index_of(own_client, "notes") == "exact"
    refused = await run(
        CliRunner().invoke, commands, ["index", "build", "nowhere", "--database-url", url]
    )
    assert isinstance(refused.exception, NotFound)
    assert str(refused.exception) == "there is no namespace 'nowhere'"


async def test_a_build_that_the_release_before_noted_counts_too(admin: Admin) -> None:
    """It knows index_built_at alone, and reads there what this release notes."""
    await admin.execute("""
        INSERT INTO indexd.namespaces (namespace, dimension, created_at, chunks_removed)
        VALUES ('notes', 2, now(), 30)
    """)
    [before] = await indexes.look(admin)
    assert before.dead == 30
    await admin.execute("UPDATE indexd.namespaces SET index_built_at = 20")
    [by_the_old] = await indexes.look(admin)
    assert by_the_old.dead == 10
    await indexes.note_built(admin, by_the_old)
    [by_the_new] = await indexes.look(admin)
    assert by_the_new.dead == 0
    cursor = await admin.execute("""
        SELECT chunks_removed - index_built_at, chunks_removed - chunks_removed_at_build
          FROM indexd.namespaces
    """)
    assert await cursor.fetchall() == [(0, 0)]


async def test_an_admin_who_names_one_index_touches_no_other(
    own_client: Client, url: str, admin: Admin, rng: np.random.Generator
) -> None:
    """The admin's shell need not have the settings of the server, here its threshold."""
    for namespace in ("large", "named"):
        await fill(own_client, namespace, rng.normal(size=(150, 3)), first=0)
    await index_keeper.keep_once(admin, RULES)
    run = asyncio.to_thread
    for word, state in (("drop", "exact"), ("build", "hnsw"), ("auto", "hnsw")):
        await run(command, url, "index", word, "named")
        assert await index_of(own_client, "named") == state
        assert await index_of(own_client, "large") == "hnsw"
    # Nor does it build what the shell's own rules would give one.
    await run(command, url, "index", "drop", "large")
    await admin.execute("UPDATE indexd.namespaces SET index_mode = 'always'")
    await run(command, url, "index", "drop", "named")
    assert await index_of(own_client, "large") != "hnsw"


async def test_a_namespace_cannot_steer_the_terminal(own_client: Client, url: str) -> None:
    name = "a\x1b[2Jb\rc\nd\u202e"
    await fill(own_client, name, np.ones((1, 3)))
    shown = await asyncio.to_thread(command, url, "index", "status")
    assert r"a\x1b[2Jb\rc\nd\u202e" in shown
    assert all(line.isprintable() for line in shown.split("\n"))
    [made] = (await asyncio.to_thread(command, url, "keys", "create", "k", "--namespace", name),)
    assert made
    listed = await asyncio.to_thread(command, url, "keys", "list")
    assert all(line.isprintable() for line in listed.split("\n"))
