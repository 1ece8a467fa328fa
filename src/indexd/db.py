"""The connection pool, transactions, and what the database's own errors mean to a client."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any, Self, TypeVar

import msgspec
import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from indexd import migrate
from indexd.admission import Admission
from indexd.errors import DatabaseUnavailable, InvalidRequest
from indexd.one_trip import one_trip
from indexd.settings import Settings
from indexd.urls import is_on_this_machine, libpq_url

T = TypeVar("T")
Connection = AsyncConnection[TupleRow]
Work = Callable[[Connection], Awaitable[T]]

OLDEST_PGVECTOR = (0, 8, 4)
"""Older ones can corrupt an HNSW graph on vacuum, and this service deletes by design."""

SCHEMA_SIGNS = ("23", "42")
"""SQLSTATE classes (constraint violated, name unknown) of a statement on an unfitting schema."""

RETRIED = ("40001", "40P01")
"""serialization_failure, deadlock_detected: the transaction may simply be run again."""

ATTEMPTS = 8


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
        self._one_trip = getattr(cursor, "one_trip", one_trip)
        self.pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            libpq_url(url),
            min_size=min(4, settings.pool_size),
            # One beside those that take turns, for /readyz.
            max_size=settings.pool_size + 1,
            timeout=settings.pool_timeout_seconds,
            # After this long a failed connection is left to the next request that wants one,
            # so that a database that was away for an hour is found at once when it is back.
            reconnect_timeout=2,
            configure=configure,
            open=False,
            name="indexd",
            kwargs={
                "autocommit": True,
                "cursor_factory": cursor,
                "application_name": "indexd",
                "connect_timeout": 5,
                "options": f"-c statement_timeout={int(settings.statement_timeout_seconds * 1000)}"
                f" -c lock_timeout={int(settings.lock_timeout_seconds * 1000)}"
                # A generic plan knows neither the namespace nor which filters are absent.
                " -c timezone=UTC -c plan_cache_mode=force_custom_plan",
            },
        )

    async def __aenter__(self) -> Self:
        await self.pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.close()

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:
        """Run `work` on one snapshot of the database, unable to change it; urgent: out of turn."""

        async def snapshot(connection: Connection) -> T:
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                return await work(connection)
            finally:
                if not connection.closed:
                    await connection.execute("COMMIT")

        return await self._read(snapshot, urgent=urgent)

    async def read_once(
        self, settings: Sequence[str], statement: str, values: Mapping[str, Any]
    ) -> list[TupleRow]:
        """The rows of one statement under settings of its own, in one round trip."""

        async def transaction(connection: Connection) -> list[TupleRow]:
            rows: list[TupleRow] = await self._one_trip(connection, settings, statement, values)
            return rows

        return await self._read(transaction)

    async def write(self, work: Work[T]) -> T:
        """Run `work` in one transaction, again where it collided with another one."""

        async def transaction(connection: Connection) -> T:
            async with connection.transaction():
                return await work(connection)

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._run(transaction)
            except _Collision as collision:
                if attempt == ATTEMPTS:
                    raise DatabaseUnavailable(
                        "the write collided with others too often; try again"
                    ) from collision
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 (jitter)
            except _ConnectionLost:
                await self.pool.check()
                raise
        raise AssertionError("unreachable")

    async def _read(self, work: Work[T], *, urgent: bool = False) -> T:
        """Reading twice is harmless, so where a connection broke since its last use it is replaced
        and the work done again, once.
        """
        try:
            return await self._run(work, urgent=urgent)
        except _ConnectionLost:
            await self.pool.check()
            return await self._run(work, urgent=urgent)

    async def look_at_schema(self) -> None:
        """Learn whether this program may still use the schema; while not, work is refused."""
        fits, why = migrate.fit(*await self.read(_standing, urgent=True))
        self.unfit = None if fits else f"the schema does not fit this program: {why}"

    def _require_fit(self) -> None:
        if self.unfit is not None:
            raise DatabaseUnavailable(self.unfit)

    async def _run(self, work: Work[T], *, urgent: bool = False) -> T:
        """Urgent work looks at versions and counts, and goes on whatever the schema is."""
        if not urgent:
            self._require_fit()
        turn = nullcontext() if urgent else self.admission.turn()
        try:
            async with turn, self.pool.connection() as connection:
                return await work(connection)
        except PoolTimeout as error:
            raise DatabaseUnavailable(
                "no database connection became free in time; try again shortly"
            ) from error
        except psycopg.Error as error:
            if not urgent and (error.sqlstate or "").startswith(SCHEMA_SIGNS):
                with suppress(DatabaseUnavailable, psycopg.Error):
                    await self.look_at_schema()
                self._require_fit()
            raise translated(error) from error


def admission_of(
    settings: Settings,
    waited: Callable[[float], None] = lambda _: None,
    refused: Callable[[str], None] = lambda _: None,
) -> Admission:
    """As many turns as there are connections; where requests wait, by the cores, if known."""
    local = settings.database_url is None or is_on_this_machine(settings.database_url)
    return Admission(
        settings.pool_size,
        length=settings.queue_length,
        seconds=settings.pool_timeout_seconds,
        cores=os.cpu_count() if local else None,
        waited=waited,
        refused=refused,
    )


class _Collision(Exception):
    """The transaction lost against a concurrent one."""


class _ConnectionLost(DatabaseUnavailable):
    """The database went away; try again shortly."""


def translated(error: psycopg.Error) -> Exception:
    """What a failure of the database is to a client; unknown ones stay as they are (500)."""
    state = error.sqlstate
    if state in RETRIED:
        return _Collision()
    # No state: the connection itself failed. 08 connection, 53 resources, 57P shutdown or start.
    if state is None:
        # Refused by the driver before it was sent: a NUL character in a query parameter.
        if isinstance(error, psycopg.DataError):
            return InvalidRequest("the request holds a value that the database cannot take")
        return _ConnectionLost() if isinstance(error, psycopg.OperationalError) else error
    if state.startswith(("08", "53", "57P")):
        return _ConnectionLost()
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


async def configure(connection: Connection) -> None:
    """Teach a connection the vector type."""
    # Registered last, the binary form is the one used: as text a vector costs 1 to 2 ms more.
    await register_vector_async(connection)


def _dumps(value: object) -> bytes:
    return msgspec.json.encode(value)


set_json_loads(msgspec.json.decode)
set_json_dumps(_dumps)


class Versions(msgspec.Struct, frozen=True):
    postgres: str
    pgvector: str | None
    schema: str | None
    oldest_program: str | None = None


async def versions(connection: Connection) -> Versions:
    """What is installed; `schema` is the migration the database is at, `oldest_program` what it
    says of the programs that may run on it.
    """
    cursor = await connection.execute("""
        SELECT current_setting('server_version'),
               (SELECT extversion FROM pg_extension WHERE extname = 'vector')
    """)
    postgres, pgvector = await cursor.fetchone() or ("", None)
    schema, oldest_program = await _standing(connection)
    return Versions(postgres.split()[0], pgvector, schema, oldest_program)


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
    ]


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
