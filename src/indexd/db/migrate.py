"""Migrates the schema of a database, by Alembic."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import NullPool

from indexd.db import catalogue
from indexd.db.revisions import configuration, fit, head, known, standing
from indexd.db.sessions import maintenance_connection
from indexd.errors import ConfigurationError

UNREACHABLE = ("08", "28", "3D", "57P")
"""SQLSTATE classes of a connection that failed: by network, login, database name, shutdown."""


def require_known(connection: psycopg.Connection[Any]) -> None:
    """Raises ConfigurationError for a schema that only a newer program can migrate."""
    schema, _ = standing(connection)
    if schema is not None and schema not in known():
        _, why = fit(schema, oldest_program=None)
        raise ConfigurationError(f"the schema is {why}")


def connect(url: str) -> psycopg.Connection[Any]:
    """Connect by psycopg: SQLAlchemy's own parser of URLs does not support several hosts."""
    return maintenance_connection(url, "indexd db")


@contextmanager
def connected(url: str) -> Iterator[sqlalchemy.Connection]:
    """A connection for Alembic. Raises ConfigurationError with a message of one line."""
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: connect(url), poolclass=NullPool
    )
    with _one_line(), engine.connect() as connection:
        yield connection


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        range_known = f"this program knows {known()[0]} to {head()}"
        raise ConfigurationError(f"{_first_line(error)}: {range_known}") from error
    except sqlalchemy.exc.DBAPIError as error:
        raise ConfigurationError(_of_database(error.orig)) from error
    except psycopg.Error as error:
        raise ConfigurationError(_of_database(error)) from error


def _of_database(error: BaseException | None) -> str:
    state = getattr(error, "sqlstate", None)
    if state == "55P03":
        return (
            "another transaction holds a table that the migration changes; nothing was changed "
            "by this one: end the transaction or wait for it, then run the command again"
        )
    if isinstance(error, psycopg.OperationalError) and (
        state is None or state.startswith(UNREACHABLE)
    ):
        return f"the database cannot be reached: {_first_line(error)}"
    return _first_line(error)


def _first_line(error: BaseException | None) -> str:
    [first, *_] = str(error).strip().splitlines() or [type(error).__name__]
    return first


@contextmanager
def _alembic(url: str) -> Iterator[Config]:
    with connected(url) as connection:
        config = configuration()
        config.attributes["connection"] = connection
        yield config


def upgrade(url: str, revision: str = "head", *, or_newer: bool = False) -> None:
    """Apply the missing migrations. If another process is migrating, wait for it to finish.

    With `or_newer`, a newer schema that admits this program is accepted and not changed.
    """
    with _one_line(), connect(url) as connection:
        schema, oldest_program = standing(connection)
    fits, why = fit(schema, oldest_program)
    if or_newer and fits and schema != head():
        print(f"nothing to do: the schema is {why}")
        return
    _run(url, lambda config: command.upgrade(config, revision))


def downgrade(url: str, revision: str) -> None:
    """Undo the migrations after a revision, one transaction each."""
    _run(url, lambda config: command.downgrade(config, revision))


ATTEMPTS = 10
"""Number of times that migrations are run which a deadlock with the service's writes ends."""


def _run(url: str, work: Callable[[Config], None]) -> None:
    """Run Alembic's `work`, and again after a deadlock: what was done before it stays done."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _alembic(url) as config:
                work(config)
            return
        except ConfigurationError as error:
            cause = getattr(error.__cause__, "orig", error.__cause__)
            if attempt == ATTEMPTS or getattr(cause, "sqlstate", None) != "40P01":
                raise
            print("the migration collided with a write, it is run again")


def current(url: str) -> None:
    """Print the revision the database is at."""
    with _one_line(), connect(url) as connection:
        schema, _ = standing(connection)
    if schema is None:
        print("nothing")
    elif schema == head():
        print(f"{schema} (head)")
    elif schema in known():
        print(schema)
    else:
        print(f"{schema} (newer than this program, which knows up to {head()})")


def check(url: str) -> None:
    """Raise ConfigurationError unless the schema is what a fresh migration makes.

    Its message has a line for each difference.
    """
    with _one_line(), connect(url) as connection:
        schema, _ = standing(connection)
        if schema != head():
            _, why = fit(schema, oldest_program=None)
            raise ConfigurationError(f"the schema cannot be compared: {why}")
        found = catalogue.differences(connection)
    if found:
        listed = "\n".join(f"  {line}" for line in found)
        raise ConfigurationError(f"the schema differs from a fresh migration:\n{listed}")


def sql(revision: str) -> None:
    """Print the SQL of the migrations without a database."""
    config = configuration()
    with _one_line():
        # Checked first, because Alembic would report an unknown revision after printing statements.
        for bound in revision.split(":"):
            ScriptDirectory.from_config(config).get_revisions(bound)
        command.upgrade(config, revision, sql=True)
