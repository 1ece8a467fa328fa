"""What a connection must have set, and what it can hold, whatever pooler is in between.

A pooler in transaction mode gives each transaction of a client another server connection, so
nothing that belongs to a server connection may be relied on there: neither settings, nor prepared
statements, nor advisory locks, nor LISTEN. Requests need none of these (`Session`); building
indexes, migrating and following the keys do (`maintenance`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg.types.datetime import TimestamptzBinaryLoader, TimestamptzLoader

from indexd.errors import ConfigurationError
from indexd.urls import libpq_url

Connection = AsyncConnection[TupleRow]
Shape = tuple[bytes, tuple[int, ...]]
"""A statement and the types of its parameters: what PostgreSQL prepares."""

PINNED = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "gin_fuzzy_search_limit": "0",
}
"""Settings that change what a statement means or answers. A role, a database or a pooler may have
defaults of its own for each of them."""

ENDLESS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
}
"""For index builds and migrations, which take hours on a large database."""

CONNECT_SECONDS = 5

PROBES = 5
"""How often two connections are compared before they count as two sessions. One comparison is
enough for a pooler that no one else uses; on a busy one chance can hide that it shares."""


class Session(AsyncConnection[TupleRow]):
    """A connection for requests.

    `pins` is a statement that each transaction begins with, where settings do not last longer;
    `prepared` are the statements that this connection has prepared, the last used at the end.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.pins: str | None = None
        self.prepared: OrderedDict[Shape, bytes] = OrderedDict()


class _UtcLoader(TimestamptzLoader):
    """A time in UTC, from ISO text.

    The parameters that the connection reports may be those of another transaction.
    """

    def __init__(self, oid: int, _: object = None) -> None:
        super().__init__(oid)


class _UtcBinaryLoader(TimestamptzBinaryLoader):
    def __init__(self, oid: int, _: object = None) -> None:
        super().__init__(oid)


def setting(values: Mapping[str, str], *, local: bool) -> str:
    """A statement that sets those of `values` that this version of PostgreSQL knows."""
    rows = ", ".join(f"('{name}', '{value}')" for name, value in values.items())
    return (
        f"SELECT set_config(name, value, {str(local).lower()}) FROM (VALUES {rows}) "
        "AS wanted (name, value) WHERE current_setting(name, true) IS NOT NULL"
    )


_ASK_PID = "SELECT pg_backend_pid()"
_HOLD = setting(PINNED | ENDLESS, local=False)


def parameters(application_name: str) -> dict[str, Any]:
    """How every connection is opened.

    None has `options`, which some poolers refuse and others drop; those of the URL stay. psycopg
    prepares nothing by itself: it numbers its statements, and a pooler would mix them up.
    """
    return {
        "application_name": application_name,
        "client_encoding": "UTF8",
        "connect_timeout": CONNECT_SECONDS,
        "prepare_threshold": None,
    }


async def settle(session: Session, values: Mapping[str, str]) -> None:
    """Make these settings hold in every transaction of a session. Raises ConfigurationError."""
    wanted = PINNED | dict(values)
    if session.info.encoding != "utf-8":
        raise ConfigurationError(
            f"the connection is encoded in {session.info.encoding} although UTF8 was asked for: "
            "a pooler drops client_encoding"
        )
    if await is_direct(session):
        await AsyncCursor(session).execute(setting(wanted, local=False))
        return
    session.pins = setting(wanted, local=True)
    session.adapters.register_loader("timestamptz", _UtcLoader)
    session.adapters.register_loader("timestamptz", _UtcBinaryLoader)


async def is_direct(connection: Connection) -> bool:
    """Whether no pooler is in between: one gives its clients process numbers of its own."""
    # A plain cursor, whatever the connection's are: this is no statement of a request to trace.
    cursor = await AsyncCursor(connection).execute(_ASK_PID)
    return await cursor.fetchone() == (connection.info.backend_pid,)


@asynccontextmanager
async def maintenance(url: str, application_name: str) -> AsyncIterator[Connection]:
    """A connection in autocommit that no timeout ends, and that holds locks and LISTEN.

    Raises ConfigurationError where a pooler in between shares it.
    """
    async with await AsyncConnection.connect(
        libpq_url(url), autocommit=True, **parameters(application_name)
    ) as connection:
        if not await is_direct(connection):
            await asyncio.to_thread(require_session, url)
        await connection.execute(_HOLD)
        yield connection


def maintenance_connection(url: str, application_name: str) -> psycopg.Connection[TupleRow]:
    """The same for code that is not asynchronous, and not in autocommit. The caller closes it."""
    connection = psycopg.connect(libpq_url(url), autocommit=True, **parameters(application_name))
    try:
        if _pid(connection) != connection.info.backend_pid:
            require_session(url)
        connection.execute(_HOLD)
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
    return connection


def require_session(url: str) -> None:
    """Raise ConfigurationError where a pooler gives the server connection of one client to another.

    It does if, between two transactions of the first client, a second one gets the same server
    connection, or the first one another.
    """
    with _probe(url) as one, _probe(url) as other:
        for _ in range(PROBES):
            mine = _pid(one)
            try:
                with other.transaction():
                    shared = _pid(other) == mine or _pid(one) != mine
            except psycopg.OperationalError:
                # There was no server connection left for the other one, so the first keeps its own.
                return
            if shared:
                raise ConfigurationError(_shared(url))


def _probe(url: str) -> psycopg.Connection[TupleRow]:
    return psycopg.connect(libpq_url(url), autocommit=True, **parameters("indexd pooler check"))


def _pid(connection: psycopg.Connection[TupleRow]) -> int:
    [pid] = connection.execute(_ASK_PID).fetchone() or (0,)
    return int(pid)


def _shared(url: str) -> str:
    parts = conninfo_to_dict(libpq_url(url))
    place = f"{parts.get('host') or 'the default host'}:{parts.get('port') or 5432}"
    return (
        f"the pooler at {place} is in transaction mode, in which indexes cannot be built, nor the "
        "schema migrated, nor API keys followed: set INDEXD_DATABASE_DIRECT_URL to the database "
        "itself, or to a pooler in session mode"
    )
