"""The connection pool, transactions, and what the database's own errors mean to a client."""

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

from indexd.db import migrate, sessions
from indexd.db.pipeline import read_in_one_round_trip
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
"""Spelled out, because a role may have another default."""

OLDEST_PGVECTOR = (0, 8, 4)
"""Older ones can corrupt an HNSW graph on vacuum, and this service deletes by design."""

SCHEMA_SIGNS = ("23", "42")
"""SQLSTATE classes (constraint violated, name unknown) of a statement on an unfitting schema."""

RETRIED = ("40001", "40P01")
"""serialization_failure, deadlock_detected: the transaction may simply be run again."""

ATTEMPTS = 8

STANDBY = "it is a standby"

NO_WRITES = f"""
    CASE WHEN pg_is_in_recovery() THEN '{STANDBY}'
         WHEN current_setting('default_transaction_read_only')::boolean
         THEN 'default_transaction_read_only is on'
    END"""
"""SQL: why the database takes no writes, null where it takes them. The mode of the transaction says
nothing, because the service reads in read-only ones."""

RENEWED_SECONDS = 5.0
"""How often at most all connections are renewed because a write found the database read-only."""

RESOURCES = {
    "53200": "the database is out of memory; try again later",
    "53300": "the database has no connection left for the service; try again later",
    "53400": "the statement needs more than a limit in the database's configuration allows",
}
"""Class 53 without the full disk, which has an error of its own."""


class Database:
    """The pool; open inside of `async with`."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        admission: Admission | None = None,
        cursor: type[AsyncCursor[TupleRow]] = AsyncCursor,
    ) -> None:
        self.admission = admission or admission_of(settings)
        self.unfit: str | None = None
        # No cursor is made for it, but a kind of cursor that watches statements watches this too.
        self._read_in_one_round_trip = getattr(
            cursor, "read_in_one_round_trip", read_in_one_round_trip
        )
        self.refusals = Refusals()
        self._renewed_at = -RENEWED_SECONDS
        self.pool: AsyncConnectionPool[Session] = AsyncConnectionPool(
            libpq_url(url),
            connection_class=Session,
            min_size=min(4, settings.pool_size),
            # One beside those that need a permit, for /readyz.
            max_size=settings.pool_size + 1,
            timeout=settings.pool_timeout_seconds,
            # After this long a failed connection is left to the next request that wants one,
            # so that a database that was away for an hour is found at once when it is back.
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
        """Run `work` on one snapshot of the database, unable to change it; urgent: out of turn."""

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
        """The rows of one statement under settings of its own, in one round trip."""

        async def transaction(session: Session) -> list[TupleRow]:
            rows: list[TupleRow] = await self._read_in_one_round_trip(
                session, settings, statement, values
            )
            return rows

        return await self._read(transaction)

    async def write(self, work: Work[T]) -> T:
        """Run `work` in one transaction, again where it collided with another one.

        Where a connection broke while it was idle, the transaction did not begin, and it does so
        on another one, once. One that broke later may have been committed: it is not run again.
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
                    with suppress(psycopg.Error):  # what went wrong before says more
                        await session.rollback()
                raise
            await session.execute("COMMIT")
            if wrote:
                self.refusals.wrote()
            return result

        begins_anew = True
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
                if not begins_anew or attempt == ATTEMPTS:
                    raise
                begins_anew = False
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
        """Replace all connections, unless they are new or the database is a standby.

        A session keeps the read-only default that its role or database had when it began.
        """
        if time.monotonic() < self._renewed_at + RENEWED_SECONDS:
            return
        self._renewed_at = time.monotonic()
        with suppress(DatabaseUnavailable):
            if await self.read(no_writes, urgent=True) != STANDBY:
                await self.pool.drain()

    async def _read(self, work: OnSession[T], *, urgent: bool = False) -> T:
        """Reading twice is harmless, so where a connection broke since its last use it is replaced
        and the work done again, once; also where a standby cut it off that applies a change to
        what is read.
        """
        try:
            return await self._run(work, urgent=urgent)
        except _ConnectionLost:
            await self.pool.check()
        except _Collision:
            pass  # the connection is either well or replaced already
        try:
            return await self._run(work, urgent=urgent)
        except _Collision as collision:
            raise DatabaseUnavailable(
                "the read collided with changes that the database applied; try again"
            ) from collision

    async def look_at_schema(self) -> None:
        """Learn whether this program may still use the schema; while not, work is refused."""
        fits, why = migrate.fit(*await self.read(_standing, urgent=True))
        self.unfit = None if fits else f"the schema does not fit this program: {why}"

    def _require_fit(self) -> None:
        if self.unfit is not None:
            raise DatabaseUnavailable(self.unfit)

    async def _run(self, work: OnSession[T], *, urgent: bool = False) -> T:
        """Urgent work looks at versions and counts, and goes on whatever the schema is."""
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
    """As many permits as connections; where requests wait, by the cores, if they are known."""
    # A pooler may run here, and the database elsewhere.
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
    """The transaction lost against a concurrent one."""


class _ConnectionLost(DatabaseUnavailable):
    """The database went away; try again shortly."""


class _NeverBegan(_ConnectionLost):
    """The database went away; try again shortly."""


async def _begin(session: Session, how: str) -> None:
    """Begin a transaction, with the settings that hold for no longer, in one round trip."""
    try:
        await session.execute(f"{how}; {session.pins}" if session.pins else how)
    except psycopg.Error as error:
        if isinstance(translated(error), _ConnectionLost):
            raise _NeverBegan from error
        raise


def translated(error: psycopg.Error) -> Exception:
    """What a failure of the database is to a client; unknown ones stay as they are (500)."""
    state = error.sqlstate
    if state in RETRIED:
        return _Collision()
    # No state: the connection itself failed. 08 connection, 57P shutdown or start.
    if state is None:
        # Refused by the driver before it was sent: a NUL character in a query parameter.
        if isinstance(error, psycopg.DataError):
            return InvalidRequest("the request holds a value that the database cannot take")
        return _ConnectionLost() if isinstance(error, psycopg.OperationalError) else error
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
    # 42P01 table, 3F000 schema: it is being restored, or was never migrated.
    if state in ("42P01", "3F000"):
        return DatabaseUnavailable("the database has not the tables of this service")
    # 58 system error: its files are gone or not its own.
    if state.startswith("58"):
        return DatabaseUnavailable("the database cannot get at its files; its log says more")
    if state == "57014":
        return DatabaseUnavailable("the statement took longer than the server allows; try again")
    # 22 data exception, 54 program limit: a value that passed our checks and not PostgreSQL's.
    if state.startswith(("22", "54")):
        return InvalidRequest("the request holds a value that the database cannot take")
    return error


async def configure(session: Session, settings: Settings) -> None:
    """Teach a session of the pool the vector type, and what must be set in it.

    Raises ConfigurationError where it cannot be served from.
    """
    await sessions.settle(
        session,
        {
            "statement_timeout": f"{settings.statement_timeout_seconds * 1000:.0f}",
            "lock_timeout": f"{settings.lock_timeout_seconds * 1000:.0f}",
            # The pool keeps connections idle on purpose, and a forget has a timeout of its own.
            "idle_session_timeout": "0",
            "transaction_timeout": "0",
            # A generic plan knows neither the namespace nor which filters are absent.
            "plan_cache_mode": "force_custom_plan",
        },
    )
    await know_vectors(session)


async def know_vectors(connection: Connection) -> None:
    """Teach a connection the vector type. Raises ConfigurationError where it is out of sight."""
    try:
        # Registered last, the binary form is the one used: as text a vector costs 1 to 2 ms more.
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
    """What there is to say of a database, over one connection made as those of the pool are.

    Raises ConfigurationError with what the database itself says, which the pool would keep back.
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
    """Raise ConfigurationError where maintenance would be done in another database."""
    async with maintenance(maintenance_url, "indexd") as connection:
        if here != await _whereabouts(connection):
            raise ConfigurationError(
                "database_direct_url: leads to another database than database_url; "
                "expected both to lead to the same one"
            )


async def _whereabouts(connection: Connection) -> TupleRow | None:
    """What only two connections to the same database have in common."""
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


set_json_loads(msgspec.json.decode)
set_json_dumps(_dumps)


async def no_writes(connection: Connection) -> str | None:
    """Why the database takes no writes on this connection; None where it takes them."""
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
    """What is installed; `schema` is the migration the database is at, `oldest_program` what it
    says of the programs that may run on it, `no_writes` why it takes no writes.
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
    """As migrate.standing."""
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
    """One line of /readyz and `indexd doctor`; `state` is said instead of ok or failed."""

    name: str
    ok: bool
    detail: str
    state: str | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.state or ('ok' if self.ok else 'failed')} ({self.detail})"


def checks(found: Versions) -> list[Check]:
    """Whether this database can be served from; a failed check names the command that helps."""
    return [
        Check("database", True, f"PostgreSQL {found.postgres}"),
        _extension_check(found.pgvector),
        Check("schema", *migrate.fit(found.schema, found.oldest_program)),
        _writes_check(found.no_writes),
    ]


def _writes_check(reason: str | None) -> Check:
    """Never a reason to send requests elsewhere: searches are served."""
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
