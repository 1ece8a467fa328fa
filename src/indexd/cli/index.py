"""`indexd index`: list the HNSW indexes, build one, drop one."""

import functools

import click

from indexd.background import index_keeper
from indexd.cli.common import on_connection, with_settings
from indexd.cli.text import say
from indexd.db.pool import Connection
from indexd.errors import ConfigurationError, NotFound
from indexd.settings import Settings
from indexd.store import indexes


@click.group()
def index() -> None:
    """HNSW indexes: list them, and decide which namespaces have one."""


@index.command()
@with_settings
def status(settings: Settings) -> None:
    """List the namespaces: chunks, dimension, and what a search uses."""

    async def look(connection: Connection) -> None:
        namespaces = await indexes.look(connection)
        obstacle = await indexes.obstacle(connection)
        serving = indexes.serving(namespaces, index_keeper.rules(settings), obstacle)
        click.echo(f"{'namespace':32} {'chunks':>10} {'dimension':>9} {'mode':6} index")
        for one in namespaces:
            index = serving[one.name]
            progress = "" if index.progress is None else f" {index.progress:.0%}"
            say(
                f"{one.name:32} {one.chunks:10} {one.dimension or '-':>9} {one.mode:6} "
                f"{index.state}{progress}{f' ({index.note})' if index.note else ''}"
            )

    on_connection(settings, look)


@index.command()
@click.argument("namespace", required=False)
@with_settings
def build(settings: Settings, namespace: str | None) -> None:
    """Build the index of NAMESPACE now, and keep it whatever its size.

    Without NAMESPACE, do one round of the index keeper, by its settings. That is for servers whose
    database role may not build indexes.
    """
    if namespace is None:
        on_connection(settings, functools.partial(_keep, settings=settings))
    else:
        _decide(namespace, "always", settings)


@index.command()
@click.argument("namespace")
@with_settings
def drop(settings: Settings, namespace: str) -> None:
    """Drop the index of NAMESPACE, and build none again: searches scan it exactly."""
    _decide(namespace, "never", settings)


@index.command()
@click.argument("namespace")
@with_settings
def auto(settings: Settings, namespace: str) -> None:
    """Leave the index of NAMESPACE to the running server's keeper, which decides by its size."""
    _decide(namespace, "auto", settings)


def _decide(namespace: str, mode: indexes.Mode, settings: Settings) -> None:
    async def decide(connection: Connection) -> None:
        await _require_builder(connection)
        if not await indexes.set_mode(connection, namespace, mode):
            raise NotFound(f"there is no namespace {namespace!r}")
        if mode == "auto":
            # The keeper of the running server applies its own settings, which may differ from ours.
            return
        # If the keeper of a running server is building it, this waits and finds the index built.
        async with index_keeper.lock(connection, 0.5):
            await index_keeper.keep_one(connection, namespace, index_keeper.rules(settings))

    on_connection(settings, decide)


async def _keep(connection: Connection, settings: Settings) -> None:
    await _require_builder(connection)
    # If the keeper of a running server is at work, this waits and finds the indexes built.
    async with index_keeper.lock(connection, 0.5):
        await index_keeper.keep_once(connection, index_keeper.rules(settings))


async def _require_builder(connection: Connection) -> None:
    """Raise ConfigurationError if this role or this database cannot build an index."""
    if obstacle := await indexes.obstacle(connection):
        raise ConfigurationError(f"the index: {obstacle}")
