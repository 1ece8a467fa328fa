"""The revisions of the schema that this program knows, and whether it can run on one of them."""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from indexd.errors import ConfigurationError

if TYPE_CHECKING:
    from alembic.config import Config

WHAT_IS_THERE = """
    SELECT to_regclass('indexd.alembic_version') IS NOT NULL,
           to_regprocedure('indexd.oldest_program()') IS NOT NULL
"""
"""SQL: whether the database has a revision, and whether it names the oldest program it admits."""

REVISION = "SELECT version_num FROM indexd.alembic_version"

OLDEST_PROGRAM = "SELECT indexd.oldest_program()"


def configuration() -> "Config":
    """The configuration of Alembic. In a wheel, the migrations are inside the package."""
    # Imported here, as below: Alembic takes 0.4 s, and most commands do not migrate.
    from alembic.config import Config

    inside = Path(__file__).parents[1] / "migrations"
    home = inside if inside.exists() else Path(__file__).parents[3] / "migrations"
    config = Config(stdout=sys.stdout)
    config.set_main_option("script_location", str(home).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@cache
def known() -> Sequence[str]:
    """The revisions that this program knows, the oldest first.

    Cached, because a server asks every second and the files do not change while it runs.
    """
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(configuration()).walk_revisions()
    found = tuple(script.revision for script in scripts)[::-1]
    if not found:
        raise ConfigurationError("the migrations of this program are missing")
    return found


def head() -> str:
    """The revision this program is written for."""
    return known()[-1]


def fit(schema: str | None, oldest_program: str | None) -> tuple[bool, str]:
    """Whether this program can run on a schema, and one line that says why.

    `schema` is the revision of the database. `oldest_program` is the head revision of the oldest
    program that the schema admits. This program is admitted if it knows that revision.
    """
    if schema == head():
        return True, schema
    if schema is None or schema in known():
        command = "run `indexd db upgrade`"
        return False, f"at {schema or 'nothing'}, this program needs {head()}: {command}"
    newer = f"at {schema}, newer than this program, which knows up to {head()}"
    if oldest_program in known():
        return True, f"{newer} and may run on it"
    return False, f"{newer}: the program is too old, run the one that migrated the database"


def standing(connection: psycopg.Connection[Any]) -> tuple[str | None, str | None]:
    """The revision of a database and the oldest program its schema admits, each None if unset."""

    def asked(statement: str) -> Any:
        return (connection.execute(statement).fetchone() or (None,))[0]

    migrated, says_oldest = connection.execute(WHAT_IS_THERE).fetchone() or (False, False)
    return (
        asked(REVISION) if migrated else None,
        asked(OLDEST_PROGRAM) if says_oldest else None,
    )
