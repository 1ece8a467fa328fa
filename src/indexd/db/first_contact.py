"""The first connection to a database, whose failure is told in the database's own words."""

import psycopg
from psycopg.rows import TupleRow

from indexd.db import sessions
from indexd.db.checks import Check, checks, versions
from indexd.db.failures import NeverBegan
from indexd.db.pool import WRITE, begin, configure
from indexd.db.sessions import Connection, Session, maintenance
from indexd.errors import ConfigurationError
from indexd.settings import Settings
from indexd.urls import libpq_url


async def first_contact(url: str, settings: Settings) -> list[Check]:
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
            await begin(session, WRITE)
            here = await _whereabouts(session)
            await session.execute("COMMIT")
        await _require_same(here, settings.maintenance_url or url)
        return [*found, _pooler_check(session)]
    except (psycopg.Error, NeverBegan) as error:
        said = error.__cause__ if isinstance(error, NeverBegan) else error
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


def _pooler_check(session: Session) -> Check:
    if session.pins is None:
        return Check("pooler", True, "none in between")
    return Check("pooler", True, "in between: nothing is prepared, each transaction sets its own")
