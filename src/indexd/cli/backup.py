"""`indexd backup` and `indexd restore`: the whole memory in one file, in the format of pg_dump."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import click
import psycopg

from indexd.cli.common import running_database, with_settings
from indexd.cli.programs import connecting, of_archives
from indexd.db import checks
from indexd.db.sessions import maintenance, maintenance_connection, require_session
from indexd.errors import ConfigurationError
from indexd.settings import Settings

NEEDED = (" SCHEMA - indexd ", " TABLE DATA indexd alembic_version ")
"""Entries that the table of contents of every backup has. Without them, a restore is refused."""

LEFT_OUT = (" INDEX indexd hnsw_", " COMMENT indexd INDEX hnsw_")
"""Entries that a restore skips: building an HNSW index takes long, and the index keeper does it."""

NEW_IN_17 = b"SET transaction_timeout "
"""Start of a line at the head of scripts of pg_restore 17 and newer, which older servers refuse."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@with_settings
def backup(settings: Settings, file: Path) -> None:
    """Write documents, policies, keys (hashed) and the audit to FILE, while the service runs."""
    if file.exists():
        raise ConfigurationError(f"{file} is there already")
    begun = file.with_name(file.name + ".part")
    with running_database(settings) as url:
        # What pg_dump sets holds for its session, and is lost in a pooler that shares it. Where
        # nobody answers, pg_dump says so itself.
        with suppress(psycopg.OperationalError):
            require_session(url)
        pg_dump, environ = connecting("pg_dump", url, own_server=settings.database_url is None)
        begun.touch(mode=0o600)
        try:
            _run([*pg_dump, "--format=custom", "--schema=indexd", f"--file={begun}"], environ)
            begun.rename(file)
        finally:
            begun.unlink(missing_ok=True)
    click.echo(f"{file}: {file.stat().st_size:,} bytes")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="Drop what the database holds now.")
@with_settings
def restore(settings: Settings, file: Path, replace: bool) -> None:
    """Put what FILE holds into a database, whole or not at all.

    HNSW indexes are not restored: a running server builds them, and searches scan until then.
    """
    with running_database(settings) as url, tempfile.TemporaryDirectory() as folder:
        contents = _run([of_archives(), "--list", str(file)]).splitlines(keepends=True)
        if not all(any(entry in line for line in contents) for entry in NEEDED):
            raise ConfigurationError(f"{file} is no backup of a memory")
        chosen = Path(folder) / "contents"
        kept = [line for line in contents if not any(part in line for part in LEFT_OUT)]
        chosen.write_text("".join(kept))
        version = _server_version(url, replace=replace)
        psql = connecting("psql", url, own_server=settings.database_url is None)
        reading = [of_archives(), f"--use-list={chosen}", str(file)]
        _restore(psql, reading, version=version, replace=replace)
        click.echo(f"restored {file}")
        for check in asyncio.run(_finish(url)):
            if not check.ok:
                raise ConfigurationError(f"{check.name}: {check.detail}")


def _server_version(url: str, *, replace: bool) -> int:
    """The version of the server. Raises ConfigurationError if there is data and not `replace`."""
    with maintenance_connection(url, "indexd restore") as connection:
        found = connection.execute("SELECT to_regnamespace('indexd') IS NOT NULL").fetchone()
        if found and found[0] and not replace:
            raise ConfigurationError(
                "the database holds a memory; restore into an empty one, or say --replace"
            )
        return connection.info.server_version


def _restore(
    psql_and_environ: tuple[list[str], dict[str, str]],
    pg_restore: list[str],
    *,
    version: int,
    replace: bool,
) -> None:
    """Drop the old schema if `replace`, and restore the archive, in one transaction.

    If a statement fails, nothing is changed, and ConfigurationError is raised. pg_restore alone
    cannot drop the schema in the same transaction, so psql runs the script that pg_restore writes.
    """
    to_database, environ = psql_and_environ
    archive = ["--no-owner", "--no-privileges", "--file=-"]
    # Terse, because the context of an error can be a row of the memory.
    run = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse", "--file=-"]
    with tempfile.TemporaryFile("w+") as said:
        with (
            # psql stops reading at the first statement that fails.
            suppress(BrokenPipeError),
            subprocess.Popen(  # noqa: S603 (the admin's own)
                [*to_database, *run],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
            ) as psql,
            subprocess.Popen(  # noqa: S603 (the admin's own)
                [*pg_restore, *archive], stdout=subprocess.PIPE, stderr=said
            ) as reader,
        ):
            assert psql.stdin is not None  # noqa: S101 (for mypy)
            assert reader.stdout is not None  # noqa: S101 (for mypy)
            psql.stdin.write(b"BEGIN; SET LOCAL client_min_messages = warning;\n")
            if replace:
                psql.stdin.write(b"DROP SCHEMA IF EXISTS indexd CASCADE;\n")
            psql.stdin.write(b"CREATE EXTENSION IF NOT EXISTS vector;\n")
            psql.stdin.writelines(known(reader.stdout, version))
            shutil.copyfileobj(reader.stdout, psql.stdin)
            # If the script is incomplete, no COMMIT is sent, and the server rolls back.
            if reader.wait() == 0:
                psql.stdin.write(b"COMMIT;\n")
        if reader.returncode or psql.returncode:
            said.seek(0)
            raise ConfigurationError(f"nothing was restored: {said.read().strip()}")


def known(script: Iterable[bytes], version: int) -> Iterator[bytes]:
    """The head of a script of pg_restore, without a setting that the server does not know.

    It ends at the first object: after that, a line with the same words can be part of a document.
    """
    for line in script:
        if version >= 170000 or not line.startswith(NEW_IN_17):
            yield line
        if not line.startswith((b"--", b"\\", b"SET ", b"SELECT ", b"\n")):
            return


async def _finish(url: str) -> list[checks.Check]:
    """Collect statistics, which the archive lacks, and check whether this program can serve."""
    async with maintenance(url, "indexd restore") as connection:
        await connection.execute("ANALYZE")
        return checks.checks(await checks.versions(connection))


def _run(words: list[str], environ: dict[str, str] | None = None) -> str:
    """Run a program and return its output. Raises ConfigurationError with its message."""
    outcome = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)  # noqa: S603 (the admin's own)
    if outcome.returncode:
        raise ConfigurationError(f"{Path(words[0]).name} failed: {outcome.stderr.strip()}")
    return outcome.stdout
