"""The connection pool and its transactions, which are run again where that helps."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, Self, TypeVar

import msgspec
import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from indexd.db import revisions, sessions
from indexd.db.checks import STANDBY, no_writes, standing
from indexd.db.failures import (
    Collision,
    ConnectionLost,
    NeverBegan,
    translated,
)
from indexd.db.pipeline import UNPREPARED, read_in_one_round_trip
from indexd.db.refusals import Refusals
from indexd.db.sessions import Session
from indexd.errors import (
    ConfigurationError,
    DatabaseReadOnly,
    DatabaseRefusal,
    DatabaseUnavailable,
)
from indexd.load.admission import Admission, Change, Limits
from indexd.settings import Settings
from indexd.urls import is_on_this_machine, libpq_url

T = TypeVar("T")
Connection = AsyncConnection[TupleRow]
Work = Callable[[Connection], Awaitable[T]]
OnSession = Callable[[Session], Awaitable[T]]

SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""SQL that begins a transaction. The isolation level is explicit, because a role may have another
default."""

SCHEMA_SIGNS = ("23", "42")
"""SQLSTATE classes (constraint violated, name unknown) of errors that a schema which does not fit
this program can cause."""

ATTEMPTS = 8
"""Number of times that a write which collides with others is run. The pauses between them double
and add up to at most 2.6 s."""

RENEWED_SECONDS = 5.0
"""Seconds: the shortest interval between two renewals of all connections, which follow a write that
found the database read-only."""


class Database:
    """The connection pool. It is open inside of `async with`."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        admission: Admission | None = None,
        cursor: type[AsyncCursor[TupleRow]] = AsyncCursor,
    ) -> None:
        self.admission = admission or admission_of(settings)
        self.unfit: str | None = None
        # This function uses no cursor; a tracing cursor class supplies its own traced version.
        self._read_in_one_round_trip = getattr(
            cursor, "read_in_one_round_trip", read_in_one_round_trip
        )
        self.refusals = Refusals()
        self._renewed_at = -RENEWED_SECONDS
        self.pool: AsyncConnectionPool[Session] = AsyncConnectionPool(
            libpq_url(url),
            connection_class=Session,
            min_size=min(4, settings.pool_size),
            # One more than the permits, for urgent work such as /readyz, which needs no permit.
            max_size=settings.pool_size + 1,
            timeout=settings.pool_timeout_seconds,
            # Seconds of background reconnecting. After that, the next request that needs a
            # connection opens it, so that a database that comes back is used at once.
            reconnect_timeout=2,
            configure=partial(configure, settings=settings),
            open=False,
            name="indexd",
            kwargs={"autocommit": True, "cursor_factory": cursor, **sessions.parameters("indexd")},
        )

    async def __aenter__(self) -> Self:
        await self.pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.close()

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:
        """Run `work` in a read-only transaction on one snapshot; `urgent` work needs no permit."""

        async def snapshot(session: Session) -> T:
            await begin(session, SNAPSHOT)
            try:
                return await work(session)
            finally:
                if not session.closed:
                    await session.execute("COMMIT")

        return await self._read(snapshot, urgent=urgent)

    async def read_once(
        self, settings: Sequence[str], statement: str, values: Mapping[str, Any]
    ) -> list[TupleRow]:
        """Run one statement under settings of its own in one round trip, and return its rows."""

        async def transaction(session: Session) -> list[TupleRow]:
            rows: list[TupleRow] = await self._read_in_one_round_trip(
                session, settings, statement, values
            )
            return rows

        return await self._read(transaction)

    async def write(self, work: Work[T]) -> T:
        """Run `work` in one transaction, and run it again if it collides with another transaction.

        If the connection broke while it was idle, the transaction never began; it is run once more
        on another connection. If the connection broke later, the transaction may have been
        committed, so it is not run again and DatabaseUnavailable is raised.
        """
        transaction = partial(self._committed, work)
        may_begin_again = True
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._run(transaction)
            except Collision as collision:
                if attempt == ATTEMPTS:
                    raise DatabaseUnavailable(
                        "the write collided with others too often; try again"
                    ) from collision
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 (jitter)
            except NeverBegan:
                await self.pool.check()
                if not may_begin_again or attempt == ATTEMPTS:
                    raise
                may_begin_again = False
            except ConnectionLost:
                await self.pool.check()
                raise
            except DatabaseRefusal as refusal:
                self.refusals.of_write(refusal)
                if isinstance(refusal, DatabaseReadOnly):
                    await self._renew()
                raise
        raise AssertionError("unreachable")

    async def _committed(self, work: Work[T], session: Session) -> T:
        """Run `work` in one transaction, which is rolled back if `work` raises."""
        await begin(session, WRITE)
        wrote = False
        try:
            result = await work(session)
            if self.refusals.lasting:
                wrote = await _has_written(session)
        except BaseException:
            if not session.closed:
                with suppress(psycopg.Error):  # the first error says more than this one
                    await session.rollback()
            raise
        await session.execute("COMMIT")
        if wrote:
            self.refusals.wrote()
        return result

    async def _renew(self) -> None:
        """Replace all connections, unless that was done recently or the database is a standby.

        A session keeps the read-only default that its role or database had when the session began.
        """
        if time.monotonic() < self._renewed_at + RENEWED_SECONDS:
            return
        self._renewed_at = time.monotonic()
        with suppress(DatabaseUnavailable):
            if await self.read(no_writes, urgent=True) != STANDBY:
                await self.pool.drain()

    async def _read(self, work: OnSession[T], *, urgent: bool = False) -> T:
        """Run `work`, and run it once more if the connection broke or a standby cancelled it.

        A standby cancels a query that reads rows which it has to change. Reading twice is harmless.
        """
        try:
            return await self._run(work, urgent=urgent)
        except ConnectionLost:
            await self.pool.check()
        except Collision:
            pass  # the connection works, or the pool has replaced it
        # Where prepared statements are missing, each connection finds that out once.
        for _ in range(self.pool.max_size):
            try:
                return await self._run(work, urgent=urgent)
            except Collision as failed:
                collision = failed
                if collision.sqlstate not in UNPREPARED:
                    break
        raise DatabaseUnavailable(
            "the read collided with changes that the database applied; try again"
        ) from collision

    async def look_at_schema(self) -> None:
        """Check whether the schema still fits this program. If not, work is refused."""
        fits, why = revisions.fit(*await self.read(standing, urgent=True))
        self.unfit = None if fits else f"the schema does not fit this program: {why}"

    def _require_fit(self) -> None:
        if self.unfit is not None:
            raise DatabaseUnavailable(self.unfit)

    async def _run(self, work: OnSession[T], *, urgent: bool = False) -> T:
        """Run `work` on a connection of the pool, and translate the database's errors.

        Urgent work reads versions and counts. It needs no permit and no fitting schema.
        """
        if not urgent:
            self._require_fit()
        permit = nullcontext() if urgent else self.admission.permit()
        try:
            async with permit, self.pool.connection() as session:
                return await work(session)
        except PoolTimeout as error:
            raise DatabaseUnavailable(
                "no database connection became free in time; try again shortly"
            ) from error
        except psycopg.Error as error:
            if not urgent and (error.sqlstate or "").startswith(SCHEMA_SIGNS):
                with suppress(DatabaseUnavailable, psycopg.Error):
                    await self.look_at_schema()
                self._require_fit()
            failure = translated(error)
            if isinstance(failure, DatabaseRefusal):
                self.refusals.say(failure, error.diag.message_primary or type(error).__name__)
            raise failure from error


async def _has_written(connection: Connection) -> bool:
    cursor = await connection.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
    return await cursor.fetchone() == (True,)


def admission_of(
    settings: Settings,
    waited: Callable[[float], None] = lambda _: None,
    refused: Callable[[str], None] = lambda _: None,
    changed: Callable[[Change], None] = lambda _: None,
) -> Admission:
    """An admission with one permit per connection, and the machine's cores if they are known.

    `waited`, `refused` and `changed` are those of Admission.
    """
    # Not database_url: a pooler may run on this machine and the database on another.
    url = settings.maintenance_url
    limits = Limits(
        permits=settings.pool_size,
        queue_length=settings.queue_length,
        queue_seconds=settings.pool_timeout_seconds,
        cores=os.cpu_count() if url is None or is_on_this_machine(url) else None,
        prefer=settings.overload_prefers,
    )
    return Admission(limits, waited=waited, refused=refused, changed=changed)


async def begin(session: Session, how: str) -> None:
    """Begin a transaction and apply the session's `pins`, in one round trip."""
    try:
        await session.execute(f"{how}; {session.pins}" if session.pins else how)
    except psycopg.Error as error:
        if isinstance(translated(error), ConnectionLost):
            raise NeverBegan from error
        raise


async def configure(session: Session, settings: Settings) -> None:
    """Register the vector type on a session of the pool, and apply its settings.

    Raises ConfigurationError if the database cannot be used through this session.
    """
    await sessions.settle(
        session,
        {
            "statement_timeout": f"{settings.statement_timeout_seconds * 1000:.0f}",
            "lock_timeout": f"{settings.lock_timeout_seconds * 1000:.0f}",
            # The pool keeps idle connections, and a forget sets a timeout of its own.
            "idle_session_timeout": "0",
            "transaction_timeout": "0",
            # A generic plan does not depend on the namespace or on which filters are given.
            "plan_cache_mode": "force_custom_plan",
        },
    )
    await know_vectors(session)


async def know_vectors(connection: Connection) -> None:
    """Register the vector type. Raises ConfigurationError if it is not on the search_path."""
    try:
        # This selects the binary format: in text format, a vector takes 1 to 2 ms more.
        await register_vector_async(connection)
    except psycopg.ProgrammingError as error:
        cursor = await connection.execute("""
            SELECT nspname, current_user, current_setting('search_path')
              FROM pg_extension
              JOIN pg_namespace
                ON pg_namespace.oid = extnamespace
             WHERE extname = 'vector'
        """)
        if (row := await cursor.fetchone()) is None:
            raise
        schema, role, path = row
        raise ConfigurationError(
            f"the extension vector is in the schema {schema}, which the search_path of the role "
            f"{role} ({path}) does not name: add it with ALTER ROLE {role} SET search_path, or "
            f"in the URL with ?options=-csearch_path%3Dpublic,{schema}"
        ) from error


def _dumps(value: object) -> bytes:
    return msgspec.json.encode(value)


# psycopg keeps these two functions for the whole process; all its JSON values use msgspec.
set_json_loads(msgspec.json.decode)
set_json_dumps(_dumps)
