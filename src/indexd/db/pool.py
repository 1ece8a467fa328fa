"""The connection pool, transactions, and the translation of the database's errors."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from types import MappingProxyType
from typing import Any, Self, TypeVar

import msgspec
import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from indexd.db import migrate, sessions
from indexd.db.pipeline import UNPREPARED, read_in_one_round_trip
from indexd.db.refusals import Refusals
from indexd.db.sessions import Session, maintenance
from indexd.errors import (
    ConfigurationError,
    DatabaseFull,
    DatabasePrivilege,
    DatabaseReadOnly,
    DatabaseRefusal,
    DatabaseUnavailable,
    InvalidRequest,
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

OLDEST_PGVECTOR = (0, 8, 4)
"""Version of pgvector: older ones can corrupt an HNSW graph on vacuum, and this service deletes
regularly."""

SCHEMA_SIGNS = ("23", "42")
"""SQLSTATE classes (constraint violated, name unknown) of errors that a schema which does not fit
this program can cause."""

RETRIED = ("40001", "40P01", *UNPREPARED)
"""SQLSTATEs after which the transaction can be run again, among them serialization_failure and
deadlock_detected."""

ATTEMPTS = 8
"""Number of times that a write which collides with others is run. The pauses between them double
and add up to at most 2.6 s."""

STANDBY = "it is a standby"
"""The reason that NO_WRITES gives on a standby."""

NO_WRITES = f"""
    CASE WHEN pg_is_in_recovery() THEN '{STANDBY}'
         WHEN current_setting('default_transaction_read_only')::boolean
         THEN 'default_transaction_read_only is on'
    END"""
"""SQL: the reason why the database takes no writes, null if it takes them. The mode of the present
transaction is no criterion, because the service reads in read-only transactions."""

RENEWED_SECONDS = 5.0
"""Seconds: the shortest interval between two renewals of all connections, which follow a write that
found the database read-only."""

RESOURCES: Mapping[str, str] = MappingProxyType(
    {
        "53200": "the database is out of memory; try again later",
        "53300": "the database has no connection left for the service; try again later",
        "53400": "the statement needs more than a limit in the database's configuration allows",
    }
)
"""Messages for the SQLSTATEs of class 53. Disk full (53100) is missing: it has an error class."""


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
            await _begin(session, SNAPSHOT)
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

        async def transaction(session: Session) -> T:
            await _begin(session, WRITE)
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

        may_begin_again = True
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._run(transaction)
            except _Collision as collision:
                if attempt == ATTEMPTS:
                    raise DatabaseUnavailable(
                        "the write collided with others too often; try again"
                    ) from collision
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 (jitter)
            except _NeverBegan:
                await self.pool.check()
                if not may_begin_again or attempt == ATTEMPTS:
                    raise
                may_begin_again = False
            except _ConnectionLost:
                await self.pool.check()
                raise
            except DatabaseRefusal as refusal:
                self.refusals.of_write(refusal)
                if isinstance(refusal, DatabaseReadOnly):
                    await self._renew()
                raise
        raise AssertionError("unreachable")

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
        except _ConnectionLost:
            await self.pool.check()
        except _Collision:
            pass  # the connection works, or the pool has replaced it
        # Where prepared statements are missing, each connection finds that out once.
        for _ in range(self.pool.max_size):
            try:
                return await self._run(work, urgent=urgent)
            except _Collision as failed:
                collision = failed
                if collision.sqlstate not in UNPREPARED:
                    break
        raise DatabaseUnavailable(
            "the read collided with changes that the database applied; try again"
        ) from collision

    async def look_at_schema(self) -> None:
        """Check whether the schema still fits this program. If not, work is refused."""
        fits, why = migrate.fit(*await self.read(_standing, urgent=True))
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


class _Collision(Exception):
    """The transaction lost against a concurrent one, or a prepared statement was not as known."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


class _ConnectionLost(DatabaseUnavailable):
    """The database went away; try again shortly."""


class _NeverBegan(_ConnectionLost):
    """The database went away; try again shortly."""


async def _begin(session: Session, how: str) -> None:
    """Begin a transaction and apply the session's `pins`, in one round trip."""
    try:
        await session.execute(f"{how}; {session.pins}" if session.pins else how)
    except psycopg.Error as error:
        if isinstance(translated(error), _ConnectionLost):
            raise _NeverBegan from error
        raise


def translated(error: psycopg.Error) -> Exception:
    """Translate an error of the database into one for clients; unknown ones are returned (500)."""
    state = error.sqlstate
    if state is not None and state in RETRIED:
        return _Collision(state)
    # An error without SQLSTATE comes from the driver: mostly, the connection failed.
    if state is None:
        # The driver refused to send a value, such as a text with a NUL character.
        if isinstance(error, psycopg.DataError):
            return InvalidRequest("the request holds a value that the database cannot take")
        return _ConnectionLost() if isinstance(error, psycopg.OperationalError) else error
    # 08: connection exception, 57P: the server is starting or shutting down.
    if state.startswith(("08", "57P")):
        return _ConnectionLost()
    if state == "25006":
        return DatabaseReadOnly()
    if state == "42501":
        return DatabasePrivilege()
    if state == "53100":
        return DatabaseFull()
    if state.startswith("53"):
        return DatabaseRefusal(RESOURCES.get(state, "the database lacks a resource; try later"))
    # idle_in_transaction_session_timeout, transaction_timeout
    if state in ("25P03", "25P04"):
        return DatabaseUnavailable("the transaction took longer than the database allows")
    if state == "55P03":
        return DatabaseUnavailable("another request holds what this one changes; try again")
    # 42P01 table, 3F000 schema is missing: the database is being restored, or was never migrated.
    if state in ("42P01", "3F000"):
        return DatabaseUnavailable("the database has not the tables of this service")
    # 58 system error: the server's files are missing or not readable.
    if state.startswith("58"):
        return DatabaseUnavailable("the database cannot get at its files; its log says more")
    if state == "57014":
        return DatabaseUnavailable("the statement took longer than the server allows; try again")
    # 22 data exception, 54 program limit: a value that passed our checks, but not PostgreSQL's.
    if state.startswith(("22", "54")):
        return InvalidRequest("the request holds a value that the database cannot take")
    return error


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


async def first_contact(url: str, settings: Settings) -> "list[Check]":
    """Check a database over one connection that is opened like those of the pool.

    Raises ConfigurationError with the message of the database, which the pool would not show.
    """
    try:
        async with await Session.connect(
            libpq_url(url), autocommit=True, **sessions.parameters("indexd")
        ) as session:
            found = checks(await versions(session))
            if not all(check.ok for check in found):
                return found
            await configure(session, settings)
            await _begin(session, WRITE)
            here = await _whereabouts(session)
            await session.execute("COMMIT")
        await _require_same(here, settings.maintenance_url or url)
        return [*found, _pooler_check(session)]
    except (psycopg.Error, _NeverBegan) as error:
        said = error.__cause__ if isinstance(error, _NeverBegan) else error
        raise ConfigurationError(f"the database cannot be reached: {said}") from error


async def _require_same(here: TupleRow | None, maintenance_url: str) -> None:
    """Raise ConfigurationError if the URL for maintenance leads to another database."""
    async with maintenance(maintenance_url, "indexd") as connection:
        if here != await _whereabouts(connection):
            raise ConfigurationError(
                "database_direct_url: leads to another database than database_url; "
                "expected both to lead to the same one"
            )


async def _whereabouts(connection: Connection) -> TupleRow | None:
    """Values that are equal only on two connections to the same database."""
    cursor = await connection.execute("""
        SELECT pg_postmaster_start_time()::text, oid
          FROM pg_database
         WHERE datname = current_database()
    """)
    return await cursor.fetchone()


def _pooler_check(session: Session) -> "Check":
    if session.pins is None:
        return Check("pooler", True, "none in between")
    return Check("pooler", True, "in between: nothing is prepared, each transaction sets its own")


def _dumps(value: object) -> bytes:
    return msgspec.json.encode(value)


# psycopg keeps these two functions for the whole process; all its JSON values use msgspec.
set_json_loads(msgspec.json.decode)
set_json_dumps(_dumps)


async def no_writes(connection: Connection) -> str | None:
    """The reason why the database takes no writes on this connection; None if it takes them."""
    cursor = await connection.execute(f"SELECT {NO_WRITES}")
    [reason] = await cursor.fetchone() or (None,)
    return None if reason is None else str(reason)


class Versions(msgspec.Struct, frozen=True):
    postgres: str
    pgvector: str | None
    schema: str | None
    oldest_program: str | None = None
    no_writes: str | None = None


async def versions(connection: Connection) -> Versions:
    """Read the versions of a database, its schema, and whether it takes writes.

    `schema` is the revision of the database, `oldest_program` the oldest program it admits (see
    `migrate.fit`), `no_writes` the reason why it takes no writes.
    """
    cursor = await connection.execute(f"""
        SELECT current_setting('server_version'),
               (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
               {NO_WRITES}
    """)
    postgres, pgvector, reason = await cursor.fetchone() or ("", None, None)
    schema, oldest_program = await _standing(connection)
    return Versions(postgres.split()[0], pgvector, schema, oldest_program, reason)


async def _standing(connection: Connection) -> tuple[str | None, str | None]:
    """The asynchronous form of `migrate.standing`."""
    cursor = await connection.execute(migrate.WHAT_IS_THERE)
    migrated, says_oldest = await cursor.fetchone() or (False, False)
    schema = oldest_program = None
    if migrated:
        cursor = await connection.execute(migrate.REVISION)
        schema = (await cursor.fetchone() or (None,))[0]
    if says_oldest:
        cursor = await connection.execute(migrate.OLDEST_PROGRAM)
        oldest_program = (await cursor.fetchone() or (None,))[0]
    return schema, oldest_program


class Check(msgspec.Struct, frozen=True):
    """One line of /readyz and `indexd doctor`. `state` is shown instead of "ok" or "failed"."""

    name: str
    ok: bool
    detail: str
    state: str | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.state or ('ok' if self.ok else 'failed')} ({self.detail})"


def checks(found: Versions) -> list[Check]:
    """Checks whether this program can serve a database. A failed one names the command to run."""
    return [
        Check("database", True, f"PostgreSQL {found.postgres}"),
        _extension_check(found.pgvector),
        Check("schema", *migrate.fit(found.schema, found.oldest_program)),
        _writes_check(found.no_writes),
    ]


def _writes_check(reason: str | None) -> Check:
    """Never a failed check: a server that cannot write still answers searches."""
    if reason is None:
        return Check("writes", True, "taken")
    return Check("writes", True, f"the database takes none: {reason}", "refused")


def _extension_check(version: str | None) -> Check:
    if version is None:
        return Check("extension", False, "vector is not installed: run `indexd db upgrade`")
    if tuple(int(part) for part in version.split(".")) < OLDEST_PGVECTOR:
        return Check(
            "extension",
            False,
            f"pgvector {version} can corrupt an index on vacuum: install 0.8.4 or newer, "
            "then run `ALTER EXTENSION vector UPDATE`",
        )
    return Check("extension", True, f"pgvector {version}")
