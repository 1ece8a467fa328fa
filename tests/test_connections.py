"""Connections that others had a say in: defaults of a role or a database, and servers that left."""

import asyncio
from typing import Any

import msgspec
import psycopg
import pytest
from click.testing import CliRunner

from indexd.app import create_app
from indexd.cli import commands
from indexd.db import migrate
from indexd.db.pool import Connection, Database
from indexd.db.sessions import maintenance, maintenance_connection
from indexd.errors import DatabaseUnavailable
from indexd.settings import Settings
from indexd.store import indexes
from tests.conftest import Client, Sql, command, document
from tests.test_poolers import refusal

pytestmark = pytest.mark.slow

SHORT = {
    "statement_timeout": "50ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "50ms",
    "idle_session_timeout": "50ms",
    "transaction_timeout": "50ms",
}


def set_defaults(own_sql: Sql, **defaults: str) -> None:
    """For connections of this database from now on."""
    [(database,)] = own_sql("SELECT current_database()")
    version = int(own_sql("SHOW server_version_num")[0][0])
    for name, value in defaults.items():
        if name != "transaction_timeout" or version >= 170000:
            own_sql(f"ALTER DATABASE \"{database}\" SET {name} = '{value}'")


async def test_no_timeout_of_a_role_ends_maintenance(url: str, own_sql: Sql) -> None:
    set_defaults(own_sql, **SHORT)
    async with maintenance(url, "indexd test") as connection:
        await connection.execute("SELECT pg_sleep(0.2)")
        await asyncio.sleep(0.2)
        async with connection.transaction():
            await connection.execute("SELECT 1")
            await asyncio.sleep(0.2)
            await connection.execute("SELECT pg_sleep(0.2)")


def test_no_timeout_of_a_role_ends_a_migration(url: str, own_sql: Sql) -> None:
    set_defaults(own_sql, **SHORT)
    connection = maintenance_connection(url, "indexd test")
    try:
        connection.execute("SELECT pg_sleep(0.2)")
        connection.execute("SELECT pg_sleep(0.2)")
    finally:
        connection.close()
    migrate.downgrade(url, "-1")
    migrate.upgrade(url)


async def test_an_index_is_built_under_a_statement_timeout(
    own_client: Client, url: str, own_sql: Sql, rng: Any
) -> None:
    for number in range(4):
        sent = document(f"d{number}", *rng.normal(size=(250, 128)))
        assert (await own_client.post("/index/upsert", json=sent)).status_code == 200
    set_defaults(own_sql, **SHORT)
    await asyncio.to_thread(command, url, "index", "build", "notes")
    async with maintenance(url, "indexd test") as connection:
        [space] = await indexes.look(connection)
    assert space.serving


async def test_a_running_keeper_builds_under_a_statement_timeout(
    settings: Settings, own_sql: Sql, rng: Any
) -> None:
    set_defaults(own_sql, **SHORT)
    quick = {"index_threshold": 500, "keeper_interval_seconds": 0.1}
    async with Client(create_app(msgspec.structs.replace(settings, **quick))) as client:
        for number in range(4):
            sent = document(f"d{number}", *rng.normal(size=(250, 128)))
            assert (await client.post("/index/upsert", json=sent)).status_code == 200
        for _ in range(900):
            details = (await client.get("/index/stats")).json()["details"]["notes"]
            if details["index"] == "hnsw":
                break
            await asyncio.sleep(0.1)
    assert details["index"] == "hnsw"


@pytest.mark.parametrize(
    ("words", "shown"),
    [(("index", "status"), "indexd index status"), (("doctor",), "indexd doctor")],
)
def test_commands_show_under_their_own_names(
    url: str, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], shown: str
) -> None:
    names: list[Any] = []
    look = indexes.look

    async def watched(connection: Connection) -> list[indexes.Namespace]:
        cursor = await connection.execute("SHOW application_name")
        names.extend(await cursor.fetchone() or ())
        return await look(connection)

    monkeypatch.setattr(indexes, "look", watched)
    command(url, *words)
    assert names == [shown]


def test_times_of_keys_are_listed_in_utc(url: str, own_sql: Sql) -> None:
    set_defaults(own_sql, timezone="America/New_York", datestyle="SQL, DMY")
    command(url, "keys", "create", "mine", "--expires", "2099-01-01T00:00Z")
    assert "2099-01-01T00:00:00Z" in command(url, "keys", "list")


class TestVectorElsewhere:
    """The extension in a schema of its own, as providers have it."""

    @pytest.fixture(autouse=True)
    def moved(self, own_sql: Sql) -> None:
        own_sql("CREATE SCHEMA extensions")
        own_sql("ALTER EXTENSION vector SET SCHEMA extensions")

    def test_the_start_says_that_the_search_path_lacks_it(self, url: str) -> None:
        line = refusal(url)
        assert "the extension vector is in the schema extensions" in line
        assert "search_path" in line

    def test_doctor_finds_what_stops_the_server(self, url: str) -> None:
        outcome = CliRunner().invoke(commands, ["doctor", "--database-url", url])
        assert outcome.exit_code == 1
        assert "the extension vector is in the schema extensions" in outcome.output

    async def test_options_of_the_url_hold_beside_ours(self, url: str) -> None:
        with_options = f"{url}&options=-csearch_path%3Dpublic,extensions%20-ctimezone%3DJapan"
        async with Client(create_app(Settings(database_url=with_options))) as client:
            sent = document("a", [1, 2])
            assert (await client.post("/index/upsert", json=sent)).status_code == 200
            found = await client.post(
                "/index/search", json={"embedding": [1, 2], "namespace": "notes"}
            )
            [hit] = found.json()["results"]
            assert hit["ingested_at"].endswith("Z")


def test_the_start_says_what_the_database_says(url: str) -> None:
    assert 'role "nobody" does not exist' in refusal(url.replace("postgres@", "nobody@"))


def _end_all(url: str) -> None:
    """As a firewall, or a timeout of the server, ends connections that are idle."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("""
            SELECT pg_terminate_backend(pid, 5000)
              FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
        """)


async def test_a_write_on_connections_that_died_idle_is_done_on_new_ones(
    own_client: Client, url: str
) -> None:
    for round_ in range(3):
        sent = [document(f"{round_}-{n}", [1, 2]) for n in range(4)]
        _end_all(url)
        answers = [await own_client.post("/index/upsert", json=one) for one in sent]
        assert [answer.status_code for answer in answers] == [200] * 4
        _end_all(url)
        gone = await own_client.post(
            "/index/delete", json={"namespace": "notes", "doc_id": f"{round_}-0"}
        )
        assert gone.status_code == 200


async def test_a_write_that_was_cut_off_is_never_run_again(url: str) -> None:
    runs = 0

    async def work(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        await connection.execute("SELECT 1")
        # What is sent next is the COMMIT.
        await asyncio.to_thread(_end_all, url)

    async with Database(url, Settings()) as database:
        with pytest.raises(DatabaseUnavailable):
            await database.write(work)
    assert runs == 1
