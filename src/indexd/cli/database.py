"""`indexd db` and `indexd psql`: what admins and pipelines do with the database."""

import subprocess
import sys
from contextlib import AbstractContextManager

import click

from indexd import migrate, roles
from indexd.cli.common import database_options, load, running_database
from indexd.cli.programs import program, target


@click.group()
def db() -> None:
    """Migrate the database, or look at where it is."""


@db.command()
@click.argument("revision", default="head")
@database_options
def upgrade(revision: str, database_url: str | None, data_dir: str | None) -> None:
    """Apply the migrations that are missing, up to REVISION."""
    with _url(database_url, data_dir) as url:
        migrate.upgrade(url, revision)


@db.command()
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
    """Fail unless the database has exactly the tables this program knows."""
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
    with _url(database_url, data_dir) as url:
        database, environ = target(url)
        outcome = subprocess.run(  # noqa: S603 (the admin's own)
            [program("psql"), database, *arguments], env=environ, check=False
        )
        sys.exit(outcome.returncode)


def _url(url: str | None, data_dir: str | None) -> AbstractContextManager[str]:
    return running_database(load(database_url=url, data_dir=data_dir))
