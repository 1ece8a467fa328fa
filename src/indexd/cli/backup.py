"""`indexd backup` and `indexd restore`: the whole memory in one file, by pg_dump's own format."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import click
import psycopg

from indexd import db as database
from indexd import embedded
from indexd.cli.common import database_options, load, running_database
from indexd.errors import ConfigurationError
from indexd.urls import for_command_line, libpq_url

LEFT_OUT = (" INDEX indexd hnsw_", " COMMENT indexd INDEX hnsw_")
"""Entries of the archive that a restore leaves to the index keeper, which builds them later."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@database_options
def backup(file: Path, database_url: str | None, data_dir: str | None) -> None:
    """Write documents, policies, keys (hashed) and the audit to FILE, while the service runs."""
    if file.exists():
        raise ConfigurationError(f"{file} is there already")
    begun = file.with_name(file.name + ".part")
    with running_database(load(database_url=database_url, data_dir=data_dir)) as url:
        begun.touch(mode=0o600)
        try:
            _run("pg_dump", url, "--format=custom", "--schema=indexd", f"--file={begun}")
            begun.rename(file)
        finally:
            begun.unlink(missing_ok=True)
    click.echo(f"{file}: {file.stat().st_size:,} bytes")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="Drop what the database holds now.")
@database_options
def restore(file: Path, replace: bool, database_url: str | None, data_dir: str | None) -> None:
    """Put what FILE holds into a database, whole or not at all.

    HNSW indexes are not restored: a running server builds them, and searches scan until then.
    """
    settings = load(database_url=database_url, data_dir=data_dir)
    with running_database(settings) as url, tempfile.TemporaryDirectory() as folder:
        contents = _run("pg_restore", None, "--list", str(file)).splitlines(keepends=True)
        chosen = Path(folder) / "contents"
        kept = [line for line in contents if not any(part in line for part in LEFT_OUT)]
        chosen.write_text("".join(kept))
        _make_room(url, replace=replace)
        _run(
            "pg_restore",
            url,
            *("--single-transaction", "--no-owner", "--no-privileges"),
            *(f"--use-list={chosen}", str(file)),
        )
        click.echo(f"restored {file}")
        for check in asyncio.run(_finish(url)):
            if not check.ok:
                raise ConfigurationError(f"{check.name}: {check.detail}")


def _make_room(url: str, *, replace: bool) -> None:
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        found = connection.execute("SELECT to_regnamespace('indexd') IS NOT NULL").fetchone()
        if found and found[0]:
            if not replace:
                raise ConfigurationError(
                    "the database holds a memory; restore into an empty one, or say --replace"
                )
            connection.execute("DROP SCHEMA indexd CASCADE")
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")


async def _finish(url: str) -> list[database.Check]:
    """Statistics, which the archive has none of, and whether this program can serve it."""
    async with await psycopg.AsyncConnection.connect(libpq_url(url), autocommit=True) as connection:
        await connection.execute("ANALYZE")
        return database.checks(await database.versions(connection))


def _run(program: str, url: str | None, *arguments: str) -> str:
    """Its output; raises ConfigurationError with what it said. No password is in its arguments."""
    own = embedded.BINARIES / program
    path = str(own) if own.exists() else shutil.which(program)
    if path is None:
        raise ConfigurationError(f"{program} is neither part of indexd here nor on the PATH")
    environ = dict(os.environ)
    target = []
    if url is not None:
        conninfo, secrets = for_command_line(url)
        environ |= secrets
        target = [f"--dbname={conninfo}"]
    outcome = subprocess.run(  # noqa: S603 (the admin's own)
        [path, *target, *arguments], env=environ, capture_output=True, text=True, check=False
    )
    if outcome.returncode:
        raise ConfigurationError(f"{program} failed: {outcome.stderr.strip()}")
    return outcome.stdout
