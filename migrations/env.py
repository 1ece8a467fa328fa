"""Runs the migrations: one transaction each, one migrator at a time.

The connection comes from the caller (`config.attributes["connection"]`, as `indexd db` hands it
over) or, under plain `alembic`, from the settings as `indexd db` reads them. Offline (`--sql`)
needs neither.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import psycopg
from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, text

from indexd import settings
from indexd.cli.common import running_database
from indexd.db.migrate import connected, require_known
from indexd.db.schema import SCHEMA, metadata
from indexd.errors import ConfigurationError

MIGRATE_LOCK = "hashtextextended('indexd:migrate', 0)"

CREATE_SCHEMA = f"""
    DO $$
    BEGIN
        -- CREATE SCHEMA IF NOT EXISTS wants CREATE on the database even where the schema is there,
        -- and a standby, whose revision can be looked at, takes neither.
        IF to_regnamespace('{SCHEMA}') IS NULL AND current_setting('transaction_read_only') = 'off'
        THEN
            CREATE SCHEMA {SCHEMA};
        END IF;
    END
    $$
"""


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Compare the schema indexd only, without the indexes that the keeper builds as it runs."""
    if kind == "index":
        return not str(name).startswith("hnsw_")
    return name == SCHEMA if kind == "schema" else True


def configure(connection: Connection | None) -> None:
    context.configure(
        connection=connection,
        dialect_name=None if connection else "postgresql",
        target_metadata=metadata,
        version_table_schema=SCHEMA,
        include_schemas=True,
        include_name=include_name,
        compare_server_default=True,
        transaction_per_migration=True,
        literal_binds=connection is None,
    )


@contextmanager
def only_migrator(connection: Connection) -> Iterator[None]:
    """Hold the migration lock on a connection of its own for the whole run.

    It is polled: a migrator that waits inside `pg_advisory_lock` holds a snapshot, and
    CREATE INDEX CONCURRENTLY in the other one would wait for that (a deadlock).
    """
    with connection.engine.connect().execution_options(
        isolation_level="AUTOCOMMIT"
    ) as lock_connection:
        unlimited(lock_connection)
        while not lock_connection.scalar(text(f"SELECT pg_try_advisory_lock({MIGRATE_LOCK})")):
            time.sleep(0.2)
        try:
            yield
        finally:
            lock_connection.execute(text(f"SELECT pg_advisory_unlock({MIGRATE_LOCK})"))


def unlimited(connection: Connection) -> None:
    """A role's own limits are for requests; the migration lock goes when its session ends."""
    for name in (
        "statement_timeout",
        "idle_session_timeout",
        "idle_in_transaction_session_timeout",
    ):
        connection.execute(text(f"SET {name} = 0"))


def migrate(connection: Connection) -> None:
    with only_migrator(connection):
        unlimited(connection)
        require_known(cast("psycopg.Connection", connection.connection.driver_connection))
        connection.execute(text("SET lock_timeout = '4s'"))
        connection.exec_driver_sql(CREATE_SCHEMA)
        connection.commit()
        configure(connection)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()


def run() -> None:
    if context.is_offline_mode():
        configure(None)
        with context.begin_transaction():
            context.execute(CREATE_SCHEMA)
            context.run_migrations()
        return
    handed_over: Connection | None = context.config.attributes.get("connection")
    if handed_over is not None:
        migrate(handed_over)
        return
    try:
        loaded = settings.load(os.environ)
        with running_database(loaded) as url, connected(url) as connection:
            migrate(connection)
    except ConfigurationError as error:
        # Alembic prints its own error as one line, every other one as a traceback.
        raise CommandError(error.message) from error


run()
