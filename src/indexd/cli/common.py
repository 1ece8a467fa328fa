"""Parts that several commands share: options, output, and the connection to the database."""

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
    """Yield the URL of the settings' database, or of the embedded one, which runs meanwhile.

    It is the direct URL if there is one, because a command may need a session, which a pooler in
    transaction mode does not offer.
    """
    if loaded.maintenance_url:
        yield loaded.maintenance_url
        return
    _require_moved(loaded)
    with embedded.postgres(loaded.data_path) as url:
        yield url


def _require_moved(loaded: Settings) -> None:
    """Raise ConfigurationError if root's data is still in root's home, as in earlier releases."""
    now, before = loaded.data_path, settings.home_data_path()
    if loaded.data_dir is not None or now == before:
        return
    if (before / "postgres").exists() and not (now / "postgres").exists():
        raise ConfigurationError(
            f"the data lies in {before}, where an earlier release put it and opened the folders "
            f"above it to everyone: `mv {before} {now}`, then close them with `chmod 700 ~`"
        )


def _command_name() -> str:
    """The name of the command in pg_stat_activity, such as `indexd keys create`."""
    path = click.get_current_context().command_path
    return " ".join(["indexd", *path.split()[1:]])


def on_connection(loaded: Settings, work: Callable[[Connection], Awaitable[None]]) -> None:
    """Run `work` on a maintenance connection, which is not in a transaction."""

    async def connected(url: str) -> None:
        async with maintenance(url, _command_name()) as connection:
            await work(connection)

    with running_database(loaded) as url:
        asyncio.run(connected(url))
