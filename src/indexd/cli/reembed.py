"""`indexd reembed`: move a namespace from one embedding model to another."""

import asyncio
import time

import click

from indexd import embedders
from indexd import reembed as work
from indexd.cli.common import running_database, with_settings
from indexd.cli.text import say
from indexd.db.sessions import maintenance
from indexd.errors import ConfigurationError
from indexd.settings import Settings
from indexd.telemetry.metrics import Metrics

LINE_SECONDS = 5.0
"""Seconds between two lines of progress."""


@click.command()
@click.argument("namespace")
@click.option(
    "--dry-run", is_flag=True, help="Report the number of texts to embed, and change nothing."
)
@with_settings
def reembed(settings: Settings, namespace: str, dry_run: bool) -> None:
    """Embed all texts of NAMESPACE again, with the embedder of the settings.

    Where its vectors come from that embedder already, only texts that were stored without a vector
    get one.

    Meanwhile the namespace can be searched and written to. All vectors are replaced in one
    transaction at the end. If a run is interrupted, the next one continues it. Configure the new
    embedder in the server afterwards: until then, it refuses texts for this namespace.
    """
    with running_database(settings) as url:
        asyncio.run(_run(url, settings, namespace, dry_run=dry_run))


async def _run(url: str, settings: Settings, namespace: str, *, dry_run: bool) -> None:
    embedder = embedders.of(settings, Metrics())
    if embedder is None:
        raise ConfigurationError("embedder_provider: set one, for it is to embed the texts")
    async with embedder, maintenance(url, "indexd reembed") as connection:
        if dry_run:
            found = await work.extent(connection, embedder, namespace)
            model = (await embedder.contact()).model
            source = found.model or ("an unnamed model" if found.dimension else "no vectors")
            say(
                f"{found.texts:,} texts{' without a vector' if found.fills else ''}, "
                f"{found.done:,} of them done, from {source} to {model}"
            )
            return
        outcome = await work.run(connection, embedder, settings, namespace, _line())
        say(f"{outcome.chunks:,} chunks are of {outcome.contact.model} now")


def _line() -> work.Show:
    last = 0.0

    def show(done: int, texts: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS or done == texts:
            last = time.monotonic()
            click.echo(f"{done:,} of {texts:,} texts")

    return show
