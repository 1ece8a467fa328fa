"""A database that takes no writes: a standby, and a role whose sessions are read-only."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from pytest_postgresql.executors.noop import NoopExecutor
from structlog.testing import CapturingLogger

from indexd import app
from indexd.app import create_app
from indexd.background import exposure_buffer, index_keeper, key_cache
from indexd.db import revisions
from indexd.db.pool import Connection, Database
from indexd.settings import Settings
from tests import standby
from tests.conftest import Client, command, document
from tests.test_access import ROUTES, about
from tests.test_serve import serving

pytestmark = pytest.mark.slow

WRITING = {
    "/index/upsert",
    "/index/bulk",
    "/index/delete",
    "/index/documents/delete",
    "/index/documents/update",
    "/index/feedback",
    "/index/forget",
}

POLICIES = """
defaults:
  semantic: {min_score: 0.6, min_age_seconds: 86400, min_exposures: 3, min_days: 2}
"""


def settings_of(url: str) -> Settings:
    return Settings(
        database_url=url,
        pool_size=4,
        keeper_interval_seconds=0.2,
        relevance_flush_seconds=0.2,
        index_threshold=1,
    )


@pytest.fixture(scope="module")
async def primary(
    server: NoopExecutor, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """The URL of a database that holds a document, and the policies in force."""
    where = f"host={server.host}&port={server.port}"
    with psycopg.connect(f"postgresql://postgres@/postgres?{where}", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE followed TEMPLATE "{server.template_dbname}"')
        url = f"postgresql://postgres@/followed?{where}"
        policies = tmp_path_factory.mktemp("policies") / "semantic.yaml"
        policies.write_text(POLICIES)
        async with Client(create_app(Settings(database_url=url, policies=str(policies)))) as client:
            body = document("a", [1, 0], texts=["a word"], ingested_at="2026-01-01T00:00:00Z")
            assert (await client.post("/index/upsert", json=body)).status_code == 200
        yield url
        admin.execute("DROP DATABASE followed WITH (FORCE)")


@pytest.fixture(scope="module")
def standby_url(primary: str) -> Iterator[str]:
    with standby.running(primary) as url:
        standby.catch_up(primary, url)
        yield url


@pytest.fixture
def frozen_url(primary: str) -> Iterator[str]:
    """As a role whose transactions are read-only by default."""
    with psycopg.connect(primary, autocommit=True) as admin:
        admin.execute("CREATE ROLE indexd_frozen LOGIN SUPERUSER")
        admin.execute("ALTER ROLE indexd_frozen SET default_transaction_read_only = on")
        yield primary.replace("//postgres@", "//indexd_frozen@")
        admin.execute("DROP ROLE indexd_frozen")


@pytest.fixture(params=["standby_url", "frozen_url"])
def read_only_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
async def read_only(read_only_url: str) -> AsyncIterator[Client]:
    async with Client(create_app(settings_of(read_only_url))) as client:
        yield client


async def test_reads_are_served_and_writes_told_why_they_are_not(read_only: Client) -> None:
    asked = 0
    for route in ROUTES:
        if route.path == "/embed/text":
            continue  # there is no embedder
        answer = await read_only.request(route.method, route.path, **about(route, "notes"))
        if route.path in WRITING:
            assert answer.status_code == 503, (route, answer.text)
            assert answer.json()["code"] == "read_only"
            assert "takes no writes" in answer.json()["error"]
            assert int(answer.headers["retry-after"]) >= 1
            asked += 1
        else:
            assert answer.status_code == 200, (route, answer.text)
    assert asked == len(WRITING)
    body = {"namespace": "notes", "embedding": [1, 0]}
    assert (await read_only.post("/index/search", json=body)).json()["results"][0]["doc_id"] == "a"


async def test_readyz_metrics_and_stats_say_that_no_writes_are_taken(read_only: Client) -> None:
    ready = await read_only.get("/readyz")
    assert ready.status_code == 200
    assert "writes: refused (the database takes none: " in ready.text
    assert "index_database_read_only 1.0" in (await read_only.get("/metrics")).text.splitlines()
    notes = (await read_only.get("/index/stats")).json()["details"]["notes"]
    assert notes["index"] == "exact"
    assert notes["index_note"].startswith("not built while the database takes no writes")


async def test_keeper_and_exposures_wait_quietly(
    read_only_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said = CapturingLogger()
    for module in (app, exposure_buffer, index_keeper, key_cache):
        monkeypatch.setattr(module, "log", said)
    async with Client(create_app(settings_of(read_only_url))) as client:
        for _ in range(6):
            await client.post("/index/search", json={"namespace": "notes", "embedding": [1, 0]})
            await asyncio.sleep(0.3)
        dropped = (await client.get("/metrics")).text
    assert sorted(call.args[0] for call in said.calls) == [
        "indexes are not built here",
        "policies are read as they stand",
    ]
    assert ["refuses a statement, read_only" in one.message for one in caplog.records] == [True]
    assert "index_exposures_dropped_total 0.0" not in dropped
    assert 'index_writes_refused{reason="read_only"} 1.0' in dropped


async def test_a_database_that_takes_writes_again_is_written_to_without_a_restart(
    frozen_url: str, primary: str
) -> None:
    async with Client(create_app(settings_of(frozen_url))) as client:
        body = document("b", [1, 0])
        assert (await client.post("/index/upsert", json=body)).json()["code"] == "read_only"
        with psycopg.connect(primary, autocommit=True) as admin:
            admin.execute("ALTER ROLE indexd_frozen RESET default_transaction_read_only")
        deadline = time.monotonic() + 30
        while (answer := await client.post("/index/upsert", json=body)).status_code == 503:
            assert time.monotonic() < deadline, answer.text
            await asyncio.sleep(0.2)
        assert answer.status_code == 200
        # A session that was open before stays read-only, and is refused until it is closed.
        while "writes: ok (taken)" not in (await client.get("/readyz")).text:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)


async def test_a_promoted_standby_takes_writes_and_builds_indexes_without_a_restart(
    primary: str,
) -> None:
    with standby.running(primary) as url:
        standby.catch_up(primary, url)
        await promoted(url)


async def promoted(standby_url: str) -> None:
    async with Client(create_app(settings_of(standby_url))) as client:
        body = document("b", [1, 0])
        assert (await client.post("/index/upsert", json=body)).json()["code"] == "read_only"
        with psycopg.connect(standby_url, autocommit=True) as admin:
            admin.execute("SELECT pg_promote()")
        assert (await client.post("/index/upsert", json=body)).status_code == 200
        assert "index_database_read_only 0.0" in (await client.get("/metrics")).text.splitlines()
        deadline = time.monotonic() + 30
        while (await client.get("/index/stats")).json()["details"]["notes"]["index"] != "hnsw":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


async def test_a_read_that_a_standby_cuts_off_is_done_again(primary: str, standby_url: str) -> None:
    """A change that the standby must apply ends the transactions that look at what it changes."""
    attempts = 0

    def change() -> None:
        with psycopg.connect(primary, autocommit=True) as admin:
            admin.execute("TRUNCATE indexd.reembedded")
        standby.catch_up(primary, standby_url)

    async def look(connection: Connection) -> int:
        nonlocal attempts
        attempts += 1
        await connection.execute("SELECT count(*) FROM indexd.reembedded")
        if attempts == 1:
            await asyncio.to_thread(change)
        cursor = await connection.execute("SELECT count(*) FROM indexd.reembedded")
        return len(await cursor.fetchall())

    async with Database(standby_url, settings_of(standby_url)) as database:
        assert await database.read(look) == 1
    assert attempts == 2


def test_the_commands_that_look_work_on_a_standby(standby_url: str) -> None:
    assert command(standby_url, "db", "current").startswith(revisions.head())
    command(standby_url, "db", "check")
    assert "notes" in command(standby_url, "index", "status")
    found = command(standby_url, "doctor")
    assert "writes: refused (the database takes none: it is a standby)" in found


def test_a_server_starts_on_a_standby_with_an_admin_key_file(
    standby_url: str, tmp_path: Path
) -> None:
    key = tmp_path / "admin"
    key.write_text("k" * 40)
    with serving(
        tmp_path,
        "--database-url",
        standby_url,
        INDEXD_AUTH="keys",
        INDEXD_ADMIN_KEY_FILE=str(key),
    ) as (client, _):
        header = {"Authorization": f"Bearer {'k' * 40}"}
        assert client.get("/index/stats", headers=header).status_code == 401
        time.sleep(2.5)
    said = (tmp_path / "out").read_text()
    assert said.count("keys and policies are read as they stand") == 1
    assert "keys are not followed" not in said
    assert "interrupted" not in said
