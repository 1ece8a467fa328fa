"""`indexd policy`: look at the retention policies, check a file, put it in force."""

import asyncio
from pathlib import Path

import click
import msgspec

from indexd import policy as policies
from indexd.cli.common import database_options, load, running_database
from indexd.db import Database
from indexd.policy import Policies
from indexd.store import policies as store


@click.group()
def policy() -> None:
    """Retention policies: how fast namespaces fade and what they may hold."""


@policy.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(file: Path | None) -> None:
    """Fail unless FILE (or the one that would be loaded) is valid, naming the key at fault."""
    found = policies.load(file or load().policies_path)
    click.echo(f"{found.source}: valid, {len(found.namespaces)} namespaces, hash {found.hash}")


@policy.command()
@database_options
def show(database_url: str | None, data_dir: str | None) -> None:
    """Print the policies in force as YAML."""
    settings = load(database_url=database_url, data_dir=data_dir)

    async def look(url: str) -> Policies:
        async with Database(url, settings) as database:
            found, _ = await database.read(store.in_force)
            return found

    with running_database(settings) as url:
        found = asyncio.run(look(url))
    click.echo(f"# from {found.source or 'nowhere: none were loaded yet'}, hash {found.hash}")
    shown = {"defaults": found.defaults, "namespaces": found.namespaces}
    click.echo(msgspec.yaml.encode(shown, order="sorted").decode(), nl=False)


@policy.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@database_options
def apply(file: Path | None, database_url: str | None, data_dir: str | None) -> None:
    """Put FILE in force in the database. Forgets nothing; a start loads its own file again."""
    settings = load(database_url=database_url, data_dir=data_dir)
    wanted = policies.load(file or settings.policies_path)

    async def put(url: str) -> bool:
        async with Database(url, settings) as database:
            return await database.write(lambda connection: store.apply(connection, wanted))

    with running_database(settings) as url:
        changed = asyncio.run(put(url))
    click.echo(f"{'applied' if changed else 'already in force'}: {wanted.source}, {wanted.hash}")
