"""Whether this program can serve a database: its versions, and the lines of /readyz."""

import msgspec

from indexd.db import revisions
from indexd.db.sessions import Connection

OLDEST_PGVECTOR = (0, 8, 4)
"""Version of pgvector: older ones can corrupt an HNSW graph on vacuum, and this service deletes
regularly."""


async def no_writes(connection: Connection) -> str | None:
    """The reason why the database takes no writes on this connection; None if it takes them."""
    cursor = await connection.execute(f"SELECT {NO_WRITES}")
    [reason] = await cursor.fetchone() or (None,)
    return None if reason is None else str(reason)


STANDBY = "it is a standby"
"""The reason that NO_WRITES gives on a standby."""

NO_WRITES = f"""
    CASE WHEN pg_is_in_recovery() THEN '{STANDBY}'
         WHEN current_setting('default_transaction_read_only')::boolean
         THEN 'default_transaction_read_only is on'
    END"""
"""SQL: the reason why the database takes no writes, null if it takes them. The mode of the present
transaction is no criterion, because the service reads in read-only transactions."""


class Versions(msgspec.Struct, frozen=True):
    postgres: str
    pgvector: str | None
    schema: str | None
    oldest_program: str | None = None
    no_writes: str | None = None


async def versions(connection: Connection) -> Versions:
    """Read the versions of a database, its schema, and whether it takes writes.

    `schema` is the revision of the database, `oldest_program` the oldest program it admits (see
    `revisions.fit`), `no_writes` the reason why it takes no writes.
    """
    cursor = await connection.execute(f"""
        SELECT current_setting('server_version'),
               (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
               {NO_WRITES}
    """)
    postgres, pgvector, reason = await cursor.fetchone() or ("", None, None)
    schema, oldest_program = await standing(connection)
    return Versions(postgres.split()[0], pgvector, schema, oldest_program, reason)


async def standing(connection: Connection) -> tuple[str | None, str | None]:
    """The asynchronous form of `revisions.standing`."""
    cursor = await connection.execute(revisions.WHAT_IS_THERE)
    migrated, says_oldest = await cursor.fetchone() or (False, False)
    schema = oldest_program = None
    if migrated:
        cursor = await connection.execute(revisions.REVISION)
        schema = (await cursor.fetchone() or (None,))[0]
    if says_oldest:
        cursor = await connection.execute(revisions.OLDEST_PROGRAM)
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
        Check("schema", *revisions.fit(found.schema, found.oldest_program)),
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
