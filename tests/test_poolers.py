"""Through PgBouncer: the right documents, whichever server connection answers."""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from indexd.app import create_app
from indexd.cli import commands
from indexd.db import sessions
from indexd.db.pipeline import MOST_PREPARED, read_in_one_round_trip
from indexd.errors import ConfigurationError
from indexd.settings import Settings
from tests import poolers
from tests.conftest import Client, Sql, command, document, service_of
from tests.poolers import pgbouncer
from tests.test_serve import serving

pytestmark = pytest.mark.slow

SEARCHES = 2_000
CLIENTS = 8

MODES = ["session", "transaction", "transaction with prepared statements"]


@pytest.fixture(params=MODES)
def pooled_url(request: pytest.FixtureRequest, url: str) -> Iterator[str]:
    mode = request.param.split()[0]
    settings: dict[str, object] = {"default_pool_size": 40 if mode == "session" else 5}
    if "prepared" in request.param:
        if poolers.version() < (1, 21):
            pytest.skip("this PgBouncer has no max_prepared_statements; 1.21 and newer have")
        settings["max_prepared_statements"] = 50
    with pgbouncer(url, mode, **settings) as through:
        yield through


@pytest.fixture
def transaction_url(url: str) -> Iterator[str]:
    with pgbouncer(url, "transaction") as through:
        yield through


def settings_for(pooled_url: str, url: str, **more: Any) -> Settings:
    return Settings(
        database_url=pooled_url,
        database_direct_url=url,
        pool_size=8,
        pool_timeout_seconds=30,
        queue_length=2_000,
        **more,
    )


@pytest.fixture
async def pooled(pooled_url: str, url: str) -> AsyncIterator[Client]:
    async with Client(create_app(settings_for(pooled_url, url))) as opened:
        yield opened


async def post_bulk(client: httpx.AsyncClient, documents: list[dict[str, Any]]) -> httpx.Response:
    body = b"".join(json.dumps(one).encode() + b"\n" for one in documents)
    headers = {"Content-Type": "application/x-ndjson"}
    return await client.post("/index/bulk", content=body, headers=headers)


async def put_crosswise(client: httpx.AsyncClient) -> None:
    """A has X for its path and Y for its origin, B the other way round."""
    for doc_id, path, origin in (("A", "X", "Y"), ("B", "Y", "X")):
        sent = document(
            doc_id, [1, 0], texts=["some words"], source_ref={"origin": origin, "id": doc_id}
        )
        sent["chunks"][0]["meta"]["source_path"] = path
        assert (await client.post("/index/upsert", json=sent)).status_code == 200


ASKED = [
    ({"source_path": "X"}, "A"),
    ({"source_path": "Y"}, "B"),
    ({"source_ref_origin": "X"}, "B"),
    ({"source_ref_origin": "Y"}, "A"),
]


async def search_crosswise(client: httpx.AsyncClient, searches: int) -> tuple[int, int]:
    """How many answers were no 200, and how many the wrong document."""
    failed = wrong = 0
    chance = random.Random(5)

    async def work() -> None:
        nonlocal failed, wrong
        for _ in range(searches // CLIENTS):
            given, expected = chance.choice(ASKED)
            sent = {"embedding": [1, 0], "namespace": "notes", "k": 2, "filters": given}
            answer = await client.post("/index/search", json=sent)
            if answer.status_code != 200:
                failed += 1
            elif [hit["doc_id"] for hit in answer.json()["results"]] != [expected]:
                wrong += 1

    await asyncio.gather(*(work() for _ in range(CLIENTS)))
    return failed, wrong


async def test_searches_of_eight_clients_find_their_own_documents(
    pooled_url: str, url: str, tmp_path: Path
) -> None:
    environ = {"INDEXD_DATABASE_URL": pooled_url, "INDEXD_DATABASE_DIRECT_URL": url}
    with serving(tmp_path, **environ) as (served, _):
        async with httpx.AsyncClient(base_url=served.base_url, timeout=60) as client:
            await put_crosswise(client)
            assert await search_crosswise(client, SEARCHES) == (0, 0)


async def test_all_routes_work_through_a_pooler(pooled: Client, own_sql: Sql) -> None:
    lines = [document(f"bulk-{n}", [n, 1], texts=["a word"]) for n in range(1, 40)]
    answer = await post_bulk(pooled, lines)
    assert answer.json()["accepted"] == 39, answer.text
    for attempt in range(12):  # psycopg prepares what it sees a sixth time, if it may
        sent = document("again", [attempt + 1, 1], texts=[f"text {attempt}"])
        assert (await pooled.post("/index/upsert", json=sent)).status_code == 200
        answer = await pooled.get(
            "/index/document", params={"namespace": "notes", "doc_id": "again"}
        )
        assert answer.status_code == 200, answer.text
        answer = await pooled.get("/index/stats")
        assert answer.status_code == 200, answer.text
        assert (await pooled.get("/readyz")).status_code == 200
    for mode in ("lexical", "hybrid", "vector"):
        sent = {"namespace": "notes", "mode": mode}
        sent |= {} if mode == "vector" else {"query": "word"}
        sent |= {} if mode == "lexical" else {"embedding": [1, 1]}
        answer = await pooled.post("/index/search", json={**sent, "k": 3})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["results"]) == 3
    forget = {"filter": {"namespace": "notes", "doc_id": "bulk-1"}, "reason": "asked for"}
    dry = await pooled.post("/index/forget", json={**forget, "dry_run": True})
    assert dry.status_code == 200, dry.text
    done = await pooled.post("/index/forget", json={**forget, "confirm": True})
    assert done.status_code == 200, done.text
    events = (await pooled.get("/index/audit")).json()["events"]
    assert "bulk-1" in str(events)
    assert own_sql("SELECT count(*) FROM indexd.documents") == [(39,)]


async def test_times_are_utc_whatever_the_defaults_of_database_and_role_are(
    pooled_url: str, url: str, own_sql: Sql
) -> None:
    [(database,)] = own_sql("SELECT current_database()")
    for default in (
        "timezone = 'America/New_York'",
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'sql_standard'",
        "client_encoding = 'LATIN1'",
        "default_transaction_isolation = 'serializable'",
        "extra_float_digits = -15",
    ):
        own_sql(f'ALTER DATABASE "{database}" SET {default}')
    for through in (url, pooled_url):
        async with Client(create_app(settings_for(through, url))) as client:
            sent = document("a", [1, 2], texts=["für 5 € 🙂"], half_life_seconds=1e7)
            assert (await client.post("/index/upsert", json=sent)).status_code == 200
            found = await client.post(
                "/index/search", json={"embedding": [1, 2], "namespace": "notes", "k": 1}
            )
            [hit] = found.json()["results"]
            assert hit["text"] == "für 5 € 🙂"
            shown = await client.get(
                "/index/document", params={"namespace": "notes", "doc_id": "a"}
            )
            for answer in (found, shown, await client.get("/index/stats")):
                assert answer.status_code == 200, answer.text
            assert hit["ingested_at"].endswith("Z")
            assert shown.json()["ingested_at"].endswith("Z")
            gone = await client.post("/index/delete", json={"namespace": "notes", "doc_id": "a"})
            assert gone.status_code == 200, gone.text
            [event, *_] = (await client.get("/index/audit")).json()["events"]
            assert str(event["at"]).endswith("Z")


async def test_settings_hold_in_each_transaction_through_a_pooler(
    pooled_url: str, url: str
) -> None:
    settings = settings_for(pooled_url, url, statement_timeout_seconds=7, lock_timeout_seconds=3)
    asked = [*sessions.PINNED, "statement_timeout", "lock_timeout", "plan_cache_mode"]
    columns = ", ".join(f"current_setting('{name}')" for name in asked)
    wanted = [*sessions.PINNED.values(), "7s", "3s", "force_custom_plan"]

    async def look(connection: Any) -> list[Any]:
        found: list[Any] = await (await connection.execute(f"SELECT {columns}")).fetchall()
        return found

    async with Client(create_app(settings)) as client:
        database = service_of(client.app).database

        async def thrice() -> list[list[Any]]:
            return [
                await database.read(look),
                await database.write(look),
                await database.read_once([], f"SELECT {columns}", {}),
            ]

        for found in await client.within(thrice()):
            assert found == [tuple(wanted)]


async def test_keys_are_followed_and_indexes_built_past_a_pooler(
    pooled_url: str, url: str, own_sql: Sql
) -> None:
    settings = settings_for(
        pooled_url, url, auth="keys", index_threshold=50, keeper_interval_seconds=0.1
    )
    made = await asyncio.to_thread(command, url, "keys", "create", "mine", "--scope", "admin")
    key = made.split()[0]
    async with Client(create_app(settings)) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        lines = [document(f"d{n}", [n, 1]) for n in range(1, 80)]
        assert (await post_bulk(client, lines)).json()["accepted"] == 79
        for _ in range(300):
            index = (await client.get("/index/stats")).json()["details"]["notes"]["index"]
            if index == "hnsw":
                break
            await asyncio.sleep(0.1)
        assert index == "hnsw"
        await asyncio.to_thread(command, url, "keys", "revoke", "mine")
        assert (await client.get("/index/stats")).status_code == 401
    held = """
        SELECT count(*)
          FROM pg_locks
          JOIN pg_database ON pg_database.oid = pg_locks.database
         WHERE locktype = 'advisory' AND datname = current_database()
    """
    assert own_sql(held) == [(0,)]


def refusal(url: str, **environ: str) -> str:
    """The one line with which `indexd serve` ends."""
    outcome = subprocess.run(
        [sys.executable, "-m", "indexd", "serve", "--port", "0"],
        env={"PATH": "/usr/bin:/bin", "INDEXD_DATABASE_URL": url, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode != 0
    assert "Traceback" not in outcome.stderr
    return outcome.stdout + outcome.stderr


def test_transaction_mode_alone_is_refused_at_start(transaction_url: str) -> None:
    line = refusal(transaction_url)
    assert "transaction mode" in line
    assert "INDEXD_DATABASE_DIRECT_URL" in line


def test_a_direct_url_that_is_a_transaction_pooler_is_refused(
    transaction_url: str, url: str
) -> None:
    line = refusal(url, INDEXD_DATABASE_DIRECT_URL=transaction_url)
    assert "transaction mode" in line


def test_a_direct_url_of_another_database_is_refused(transaction_url: str, common_url: str) -> None:
    line = refusal(transaction_url, INDEXD_DATABASE_DIRECT_URL=common_url)
    assert "another database" in line


def test_statement_mode_is_refused_in_its_own_words(url: str) -> None:
    with pgbouncer(url, "statement") as through:
        assert "statement pooling mode" in refusal(through, INDEXD_DATABASE_DIRECT_URL=url)


def test_a_pooler_that_refuses_options_is_told_in_its_own_words(
    url: str,
) -> None:
    with pgbouncer(url, "session") as through:
        line = refusal(f"{through}?options=-cno_such.thing%3D1")
        assert "unsupported startup parameter" in line


def test_commands_that_need_a_session_refuse_a_pooler_in_transaction_mode(
    transaction_url: str, tmp_path: Path
) -> None:
    backup = ["backup", str(tmp_path / "memory")]
    for words in (["index", "status"], ["db", "upgrade"], ["keys", "list"], backup):
        outcome = CliRunner().invoke(commands, [*words, "--database-url", transaction_url])
        assert outcome.exit_code != 0
        assert isinstance(outcome.exception, (ConfigurationError, SystemExit))
        assert "transaction mode" in outcome.output + str(outcome.exception)


@pytest.mark.parametrize("round_robin", [0, 1])
@pytest.mark.parametrize("servers", [1, 5])
def test_a_pooler_in_transaction_mode_is_noticed(url: str, servers: int, round_robin: int) -> None:
    with (
        pgbouncer(
            url, "transaction", default_pool_size=servers, server_round_robin=round_robin
        ) as through,
        pytest.raises(ConfigurationError, match="transaction mode"),
    ):
        sessions.require_session(through)


def test_a_pooler_in_session_mode_and_none_are_as_good(url: str) -> None:
    sessions.require_session(url)
    with pgbouncer(url, "session") as through:
        sessions.require_session(through)
        command(through, "index", "status")
    # With one server connection the second client gets none, while the first one keeps its own.
    with pgbouncer(url, "session", default_pool_size=1, query_wait_timeout=1) as through:
        sessions.require_session(through)


async def test_a_statement_prepared_by_another_client_is_no_error(url: str) -> None:
    """As behind a pooler that gives its clients the process numbers of the server."""
    told = "SELECT %(text)s::text"
    async with await sessions.Session.connect(url, autocommit=True) as session:
        assert await read_in_one_round_trip(session, [], told, {"text": "a"}) == [("a",)]
        [name] = session.prepared.values()
        session.prepared.clear()  # another server connection, on which it was prepared already
        assert await read_in_one_round_trip(session, [], told, {"text": "b"}) == [("b",)]
        assert list(session.prepared.values()) == [name]
        await session.execute("DEALLOCATE ALL")  # another one, on which it was not
        assert await read_in_one_round_trip(session, [], told, {"text": "c"}) == [("c",)]


async def test_a_connection_keeps_a_hundred_statements_and_closes_older_ones(url: str) -> None:
    async with await sessions.Session.connect(url, autocommit=True) as session:
        for number in range(MOST_PREPARED + 20):
            await read_in_one_round_trip(session, [], f"SELECT %(n)s::int + {number}", {"n": 1})
        cursor = await session.execute("SELECT name FROM pg_prepared_statements")
        there = {name.encode() for (name,) in await cursor.fetchall()}
        assert there == set(session.prepared.values())
        assert len(there) == MOST_PREPARED


def test_the_test_poolers_do_what_their_mode_says(url: str) -> None:
    with pgbouncer(url, "transaction") as through:
        assert len(poolers.backend_pids(through)) > 1
    with pgbouncer(url, "session") as through:
        assert len(poolers.backend_pids(through)) == 1
