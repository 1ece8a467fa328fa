"""`indexd db` and `indexd psql`: what admins and pipelines do with the database."""

import subprocess
import sys
from contextlib import AbstractContextManager

import click

from indexd.cli.common import database_options, load, running_database
from indexd.cli.programs import connecting
from indexd.db import migrate, roles


@click.group()
def db() -> None:
    """Migrate the database, or look at where it is."""


@db.command()
@click.argument("revision", default="head")
@click.option("--or-newer", is_flag=True, help="Accept a newer schema that admits this program.")
@database_options
def upgrade(revision: str, or_newer: bool, database_url: str | None, data_dir: str | None) -> None:
    """Apply the migrations that are missing, up to REVISION."""
    with _url(database_url, data_dir) as url:
        migrate.upgrade(url, revision, or_newer=or_newer)


# As an option it would refuse -1, which is a revision.
@db.command(context_settings={"ignore_unknown_options": True})
@click.argument("revision")
@database_options
def downgrade(revision: str, database_url: str | None, data_dir: str | None) -> None:
    """Undo migrations down to REVISION (`base` undoes all, and all data with them)."""
    with _url(database_url, data_dir) as url:
        migrate.downgrade(url, revision)


@db.command()
@database_options
def current(database_url: str | None, data_dir: str | None) -> None:
    """Print the revision the database is at."""
    with _url(database_url, data_dir) as url:
        migrate.current(url)


@db.command()
@database_options
def check(database_url: str | None, data_dir: str | None) -> None:
    """Fail unless the schema is what a fresh migration makes, with a line for each difference.

    Compared are tables, columns, keys, checks, indexes, views, functions, triggers and rules.
    """
    with _url(database_url, data_dir) as url:
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
@database_options
def psql(arguments: tuple[str, ...], database_url: str | None, data_dir: str | None) -> None:
    """Open psql on the memory; ARGUMENTS are psql's own, such as -c 'SELECT ...'."""
    settings = load(database_url=database_url, data_dir=data_dir)
    with running_database(settings) as url:
        psql, environ = connecting("psql", url, own_server=settings.database_url is None)
        outcome = subprocess.run([*psql, *arguments], env=environ, check=False)  # noqa: S603 (the admin's own)
        sys.exit(outcome.returncode)


def _url(url: str | None, data_dir: str | None) -> AbstractContextManager[str]:
    return running_database(load(database_url=url, data_dir=data_dir))
