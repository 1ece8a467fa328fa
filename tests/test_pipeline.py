"""One statement in one round trip: under its own settings, and leaving the connection clean."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import errors
from psycopg.pq import TransactionStatus

from indexd.db.pipeline import read_in_one_round_trip, read_within_transaction
from indexd.db.pool import Connection, Database
from indexd.db.sessions import Session
from indexd.errors import InvalidRequest
from indexd.settings import Settings

TOLD = "SELECT current_setting('work_mem'), %(text)s::text, %(number)s::bigint"
SETTINGS = ["SET LOCAL work_mem = '5MB'"]


@pytest.fixture
async def connection(common_url: str) -> AsyncIterator[Session]:
    async with await Session.connect(common_url, autocommit=True) as opened:
        yield opened


def is_idle(connection: Session) -> bool:
    return not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE


async def test_settings_hold_in_the_statement_and_not_after_it(connection: Session) -> None:
    before = await (await connection.execute("SHOW work_mem")).fetchone()
    values = {"text": "a", "number": 7}
    assert await read_in_one_round_trip(connection, SETTINGS, TOLD, values) == [("5MB", "a", 7)]
    assert await (await connection.execute("SHOW work_mem")).fetchone() == before
    assert is_idle(connection)


@pytest.mark.parametrize("number", [1, 40_000, 3_000_000_000, None])
async def test_one_statement_takes_values_of_any_width(
    connection: Session, number: int | None
) -> None:
    for wanted in (5, number, 5):
        [row] = await read_in_one_round_trip(connection, [], TOLD, {"text": "ä", "number": wanted})
        assert row[1:] == ("ä", wanted)


async def test_it_outlives_a_rollback_that_deallocates_what_was_prepared(
    connection: Session,
) -> None:
    values = {"text": "a", "number": 7}
    await read_in_one_round_trip(connection, SETTINGS, TOLD, values)
    await connection.execute("DEALLOCATE ALL")
    assert await read_in_one_round_trip(connection, SETTINGS, TOLD, values) == [("5MB", "a", 7)]
    assert is_idle(connection)


async def test_settings_within_a_transaction_hold_until_its_end(connection: Session) -> None:
    values = {"text": "a", "number": 7, "not_in_the_statement": 0}
    async with connection.transaction():
        columns, rows = await read_within_transaction(connection, SETTINGS, TOLD, values)
        assert (list(columns), rows) == (["current_setting", "text", "int8"], [("5MB", "a", 7)])
        [again] = (await read_within_transaction(connection, [], TOLD, values)).rows
        assert again == ("5MB", "a", 7)
    assert len(connection.prepared) == 1
    assert is_idle(connection)


async def test_a_read_begins_again_when_a_prepared_statement_is_gone(common_url: str) -> None:
    """As behind a pooler that nobody noticed: each transaction is on another server connection."""
    values = {"text": "a", "number": 7}
    began: list[bool] = []

    async def read(session: Connection) -> object:
        assert isinstance(session, Session)
        began.append(session.prepares_in_transactions)
        return (await read_within_transaction(session, [], "SELECT %(text)s::text", values)).rows

    async with Database(common_url, Settings(pool_size=1)) as database:
        # The pool opens its second connection when two are needed at once.
        async with database.pool.connection(), database.pool.connection():
            pass
        for _ in range(4):
            assert await database.read(read) == [("a",)]
        async with database.pool.connection() as one, database.pool.connection() as other:
            for session in (one, other):
                await session.execute("DEALLOCATE ALL")
        began.clear()
        for _ in range(6):
            assert await database.read(read) == [("a",)]
    # Each of the two connections failed once, and the read began again.
    assert len(began) == 8
    assert began.count(True) == 2


async def test_it_changes_nothing(connection: Session) -> None:
    with pytest.raises(errors.ReadOnlySqlTransaction):
        await read_in_one_round_trip(
            connection, [], "DELETE FROM indexd.chunks WHERE doc_id = %(a)s", {"a": "a"}
        )
    assert is_idle(connection)


@pytest.mark.parametrize("settings", [[], ["SET LOCAL no_such.thing.at_all = 1"]])
async def test_an_error_leaves_a_connection_that_can_be_used(
    connection: Session, settings: list[str]
) -> None:
    with pytest.raises(psycopg.Error):
        await read_in_one_round_trip(connection, settings, "SELECT 1 / %(n)s::int", {"n": 0})
    assert is_idle(connection)
    assert await read_in_one_round_trip(connection, [], "SELECT 1 / %(n)s::int", {"n": 1}) == [(1,)]


async def test_a_trip_that_is_cut_off_costs_one_connection_and_no_more(common_url: str) -> None:
    async with Database(common_url, Settings(pool_size=1)) as database:
        slow = asyncio.create_task(database.read_once([], "SELECT pg_sleep(%(s)s)", {"s": 30}))
        await asyncio.sleep(0.3)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert await database.read_once([], "SELECT %(n)s::int", {"n": 3}) == [(3,)]


async def test_errors_mean_to_a_client_what_they_mean_elsewhere(common_url: str) -> None:
    async with Database(common_url, Settings()) as database:
        with pytest.raises(InvalidRequest):
            await database.read_once([], "SELECT %(n)s::int / 0", {"n": 3})


async def test_a_connection_that_broke_is_replaced(common_url: str) -> None:
    async with Database(common_url, Settings(pool_size=1)) as database:
        [(pid,)] = await database.read_once([], "SELECT pg_backend_pid() + %(n)s", {"n": 0})
        with psycopg.connect(common_url, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        [(other,)] = await database.read_once([], "SELECT pg_backend_pid() + %(n)s", {"n": 0})
        assert other != pid
