"""`indexd db` and `indexd psql`: commands on the database for admins and deployments."""

import subprocess
import sys

import click

from indexd.cli.common import running_database, with_settings
from indexd.cli.programs import connecting
from indexd.db import migrate, roles
from indexd.settings import Settings


@click.group()
def db() -> None:
    """Migrate the database, or look at where it is."""


@db.command()
@click.argument("revision", default="head")
@click.option("--or-newer", is_flag=True, help="Accept a newer schema that admits this program.")
@with_settings
def upgrade(settings: Settings, revision: str, or_newer: bool) -> None:
    """Apply the migrations that are missing, up to REVISION."""
    with running_database(settings) as url:
        migrate.upgrade(url, revision, or_newer=or_newer)


# Unknown options are arguments, because -1 is a valid revision.
@db.command(context_settings={"ignore_unknown_options": True})
@click.argument("revision")
@with_settings
def downgrade(settings: Settings, revision: str) -> None:
    """Undo migrations down to REVISION (`base` undoes all, and all data with them)."""
    with running_database(settings) as url:
        migrate.downgrade(url, revision)


@db.command()
@with_settings
def current(settings: Settings) -> None:
    """Print the revision the database is at."""
    with running_database(settings) as url:
        migrate.current(url)


@db.command()
@with_settings
def check(settings: Settings) -> None:
    """Fail unless the schema is what a fresh migration makes, with a line for each difference.

    Compared are tables, columns, keys, checks, indexes, views, functions, triggers and rules.
    """
    with running_database(settings) as url:
        migrate.check(url)


@db.command()
@click.argument("revision", default="head")
def sql(revision: str) -> None:
    """Print the SQL of the migrations, for those who apply it by hand. Needs no database."""
    migrate.sql(revision)


@db.command()
@click.argument("role", default="indexd_service")
def grant(role: str) -> None:
    """Print the SQL that lets ROLE serve, for the role that migrates. Needs no database."""
    click.echo(roles.service_grants(role), nl=False)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@with_settings
def psql(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Open psql on the memory; ARGUMENTS are psql's own, such as -c 'SELECT ...'."""
    with running_database(settings) as url:
        psql, environ = connecting("psql", url, own_server=settings.database_url is None)
        outcome = subprocess.run([*psql, *arguments], env=environ, check=False)  # noqa: S603 (the admin's own)
        sys.exit(outcome.returncode)
