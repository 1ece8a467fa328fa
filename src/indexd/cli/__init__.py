"""The command line: `indexd serve | push | search | reembed | keys | db | policy ...`."""

import sys

import click
import psycopg
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from indexd import __version__
from indexd.cli import backup, database, doctor, index, keys, push, reembed, search, serve
from indexd.cli import policy as policy_command
from indexd.cli import settings as settings_command
from indexd.cli.common import say
from indexd.errors import IndexdError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="indexd")
def commands() -> None:
    """A long-term memory for agents and tools that forgets on purpose."""


commands.add_command(serve.serve)
commands.add_command(push.push)
commands.add_command(search.search)
commands.add_command(keys.keys)
commands.add_command(database.db)
commands.add_command(database.psql)
commands.add_command(doctor.doctor)
commands.add_command(backup.backup)
commands.add_command(backup.restore)
commands.add_command(index.index)
commands.add_command(reembed.reembed)
commands.add_command(policy_command.policy)
commands.add_command(settings_command.settings)


NOT_MIGRATED = (
    errors.UndefinedTable,
    errors.InvalidSchemaName,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
)
"""Errors of the database that a missing migration causes."""


def main() -> None:
    """Run a command. An expected error is one line on standard error and exit code 1."""
    try:
        commands()
    except (IndexdError, DBAPIError, psycopg.Error, OSError) as error:
        for line in f"indexd: {_said(error)}".splitlines():
            say(line, err=True)
        sys.exit(1)


def _said(error: Exception) -> str:
    if isinstance(error, IndexdError):
        return error.message
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    # Only the first line: the others can hold values of a row.
    [first, *_] = str(error).splitlines() or [type(error).__name__]
    return f"{first}: run `indexd db upgrade`" if isinstance(error, NOT_MIGRATED) else first
