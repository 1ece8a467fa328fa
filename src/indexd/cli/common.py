"""What several commands share: their options, and how they get at the database."""

import asyncio
import functools
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from indexd import settings
from indexd.db import embedded
from indexd.db.pool import Connection
from indexd.db.sessions import maintenance
from indexd.errors import ConfigurationError
from indexd.settings import Settings
from indexd.telemetry import logs


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options --database-url and --data-dir to a command, and pass it the settings.

    The command takes the settings as its first argument. This decorator stands directly above the
    function, below those of the command's own options.
    """

    @click.option("--database-url", help="Use this PostgreSQL instead of the server's own.")
    @click.option("--data-dir", help="Where the server's own PostgreSQL keeps its data.")
    @functools.wraps(command)
    def with_options(
        *arguments: Any, database_url: str | None, data_dir: str | None, **named: Any
    ) -> None:
        command(load(database_url=database_url, data_dir=data_dir), *arguments, **named)

    return with_options


def load(**overrides: Any) -> Settings:
    """Read the settings. The log goes to standard error, apart from what the command prints."""
    loaded = settings.load(os.environ, overrides)
    logs.configure(loaded, sys.stderr)
    return loaded


@contextmanager
def running_database(loaded: Settings) -> Iterator[str]:
    """The database named in the settings, else the embedded one, running as long as this lasts.

    Past a pooler, if the settings say how: a command may need a session of its own.
    """
    if loaded.maintenance_url:
        yield loaded.maintenance_url
        return
    _require_moved(loaded)
    with embedded.postgres(loaded.data_path) as url:
        yield url


def _require_moved(loaded: Settings) -> None:
    """Raises ConfigurationError where root's data still lies in root's home, as of old."""
    now, before = loaded.data_path, settings.home_data_path()
    if loaded.data_dir is not None or now == before:
        return
    if (before / "postgres").exists() and not (now / "postgres").exists():
        raise ConfigurationError(
            f"the data lies in {before}, where an earlier release put it and opened the folders "
            f"above it to everyone: `mv {before} {now}`, then close them with `chmod 700 ~`"
        )


def printable(text: str) -> str:
    """With escapes for what could steer a terminal: most text that is shown comes from clients."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def say(line: str, *, err: bool = False) -> None:
    """Print one line, whatever the text in it."""
    click.echo(printable(line), err=err)


def _command_name() -> str:
    """As pg_stat_activity shows it: `indexd keys create`."""
    path = click.get_current_context().command_path
    return " ".join(["indexd", *path.split()[1:]])


def on_connection(loaded: Settings, work: Callable[[Connection], Awaitable[None]]) -> None:
    """Do something on one connection of its own, outside of any transaction."""

    async def connected(url: str) -> None:
        async with maintenance(url, _command_name()) as connection:
            await work(connection)

    with running_database(loaded) as url:
        asyncio.run(connected(url))
