"""`indexd policy`: show the retention policies, check a file, apply it."""

from pathlib import Path

import click
import msgspec

from indexd import policy as policies
from indexd.cli.common import load, on_connection, with_settings
from indexd.cli.text import say
from indexd.db.pool import Connection
from indexd.settings import Settings
from indexd.store import policies as store


@click.group()
def policy() -> None:
    """Retention policies: how fast namespaces fade and what they may hold."""


@policy.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(file: Path | None) -> None:
    """Fail unless FILE (or the one that would be loaded) is valid, naming the key at fault."""
    found = policies.load(file or load().policies_path)
    say(f"{found.source}: valid, {len(found.namespaces)} namespaces, hash {found.hash}")


@policy.command()
@with_settings
def show(settings: Settings) -> None:
    """Print the policies in force as YAML."""

    async def look(connection: Connection) -> None:
        found, _ = await store.in_force(connection)
        say(f"# from {found.source or 'nowhere: none were loaded yet'}, hash {found.hash}")
        shown = {"defaults": found.defaults, "namespaces": found.namespaces}
        click.echo(msgspec.yaml.encode(shown, order="sorted").decode(), nl=False)

    on_connection(settings, look)


@policy.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@with_settings
def apply(settings: Settings, file: Path | None) -> None:
    """Put FILE in force in the database. Forgets nothing; a start loads its own file again."""
    wanted = policies.load(file or settings.policies_path)

    async def put(connection: Connection) -> None:
        async with connection.transaction():
            changed = await store.apply(connection, wanted)
        how = "applied" if changed else "already in force"
        say(f"{how}: {wanted.source}, {wanted.hash}")

    on_connection(settings, put)
