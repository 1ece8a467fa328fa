"""The settings of connections, and connections that work with and without a pooler.

A pooler in transaction mode gives each transaction of a client another server connection. Then the
state of a server connection cannot be relied on: settings, prepared statements, advisory locks and
LISTEN. Requests do not need it (`Session`). Building indexes, migrating and following the keys need
it (`maintenance`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
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
"""A statement and the types of its parameters, which together make a prepared statement."""

PINNED: Mapping[str, str] = MappingProxyType(
    {
        "TimeZone": "UTC",
        "DateStyle": "ISO, MDY",
        "IntervalStyle": "postgres",
        "extra_float_digits": "1",
        "standard_conforming_strings": "on",
        "array_nulls": "on",
        "gin_fuzzy_search_limit": "0",
    }
)
"""Settings that change the meaning or the result of a statement. They are set on each connection,
because a role, a database or a pooler may have other defaults."""

ENDLESS: Mapping[str, str] = MappingProxyType(
    {
        "statement_timeout": "0",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
        "transaction_timeout": "0",
    }
)
"""No timeouts: index builds and migrations take hours on a large database."""

CONNECT_SECONDS = 5
"""Seconds that a connection attempt may take, per host of the URL."""

PROBES = 5
"""Number of comparisons after which two connections count as two sessions. One comparison finds an
idle pooler in transaction mode; a busy one can pass a comparison by chance."""


class Session(AsyncConnection[TupleRow]):
    """A connection for requests.

    `pins` is the statement that each transaction begins with if settings end with the transaction,
    else None. `prepared` maps the prepared statements to their names, the last used at the end.
    `prepares_in_transactions` is False once a prepared statement was missing inside of one.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.pins: str | None = None
        self.prepared: OrderedDict[Shape, bytes] = OrderedDict()
        self.prepares_in_transactions = True


class _UtcLoader(TimestamptzLoader):
    """Reads a time in UTC from ISO text, and ignores the time zone that the connection reports.

    Behind a pooler, the reported parameters may belong to another transaction.
    """

    def __init__(self, oid: int, _: object = None) -> None:
        super().__init__(oid)


class _UtcBinaryLoader(TimestamptzBinaryLoader):
    def __init__(self, oid: int, _: object = None) -> None:
        super().__init__(oid)


def setting(values: Mapping[str, str], *, local: bool) -> str:
    """A statement that applies `values`, except settings this version of PostgreSQL lacks."""
    rows = ", ".join(f"('{name}', '{value}')" for name, value in values.items())
    return (
        f"SELECT set_config(name, value, {str(local).lower()}) FROM (VALUES {rows}) "
        "AS wanted (name, value) WHERE current_setting(name, true) IS NOT NULL"
    )


_ASK_PID = "SELECT pg_backend_pid()"
_HOLD = setting({**PINNED, **ENDLESS}, local=False)


def parameters(application_name: str) -> dict[str, Any]:
    """The parameters with which every connection is opened.

    `options` is not among them, because some poolers refuse it and others drop it; those of the URL
    stay. psycopg prepares no statements by itself (`prepare_threshold`): it names them by numbers,
    and behind a pooler one number would mean different statements.
    """
    return {
        "application_name": application_name,
        "client_encoding": "UTF8",
        "connect_timeout": CONNECT_SECONDS,
        "prepare_threshold": None,
    }


async def settle(session: Session, values: Mapping[str, str]) -> None:
    """Apply these settings to every transaction of a session.

    Without a pooler they are set once; behind a pooler each transaction begins with them. Raises
    ConfigurationError if the connection is not encoded in UTF-8.
    """
    wanted = {**PINNED, **values}
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
    """Whether there is no pooler: a pooler reports process ids that are not the server's."""
    # A plain cursor, whatever the connection's are: this is no statement of a request to trace.
    cursor = await AsyncCursor(connection).execute(_ASK_PID)
    return await cursor.fetchone() == (connection.info.backend_pid,)


@asynccontextmanager
async def maintenance(url: str, application_name: str) -> AsyncIterator[Connection]:
    """A connection in autocommit mode without timeouts, on which session locks and LISTEN work.

    Raises ConfigurationError if a pooler in transaction mode is in between.
    """
    async with await AsyncConnection.connect(
        libpq_url(url), autocommit=True, **parameters(application_name)
    ) as connection:
        if not await is_direct(connection):
            await asyncio.to_thread(require_session, url)
        await connection.execute(_HOLD)
        yield connection


def maintenance_connection(url: str, application_name: str) -> psycopg.Connection[TupleRow]:
    """Like `maintenance`, but synchronous and not in autocommit mode. The caller closes it."""
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
    """Raise ConfigurationError if a pooler shares one server connection among several clients.

    Two clients are compared. The pooler shares if, between two transactions of the first client,
    the second client gets the same server connection, or the first client gets another one.
    """
    with _probe(url) as one, _probe(url) as other:
        for _ in range(PROBES):
            mine = _pid(one)
            try:
                with other.transaction():
                    shared = _pid(other) == mine or _pid(one) != mine
            except psycopg.OperationalError:
                # No server connection was free for the second client, so the first keeps its own.
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
