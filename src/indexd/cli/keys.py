"""`indexd keys`: create, list and revoke API keys."""

import re
from datetime import UTC, datetime, timedelta

import click

from indexd.access import SCOPES, Scope
from indexd.background import key_cache
from indexd.cli.common import on_connection, with_settings
from indexd.cli.text import say
from indexd.clock import now
from indexd.db.pool import Connection
from indexd.errors import ConfigurationError, NotFound
from indexd.names import namespace_of
from indexd.settings import Settings
from indexd.store import keys as store

RELOAD_SECONDS = 5.0
"""Seconds that a command waits at most until all servers have reloaded their keys."""

_DAYS = re.compile(r"([1-9][0-9]{0,4})d")


@click.group()
def keys() -> None:
    """API keys: make one, list them, revoke one."""


@keys.command()
@click.argument("name")
@click.option("--scope", type=click.Choice(SCOPES), default="read", show_default=True)
@click.option("--namespace", "namespaces", multiple=True, help="Limit it to this; may be repeated.")
@click.option("--expires", help="Days from now such as 90d, or a time such as 2027-01-01T00:00Z.")
@with_settings
def create(
    settings: Settings, name: str, scope: Scope, namespaces: tuple[str, ...], expires: str | None
) -> None:
    """Make a key called NAME and print it, this once; the database keeps only its hash."""
    if not (name.strip() and name.isprintable() and len(name) <= 128):
        raise ConfigurationError("NAME: expected 1 to 128 printable characters")
    if not all(one.strip() for one in namespaces):
        raise ConfigurationError("--namespace: expected a name; all without the option")
    at = now()
    expires_at = expiry(expires, at) if expires else None
    limits = sorted({namespace_of(one) for one in namespaces}) or None

    async def make(connection: Connection) -> None:
        secret = store.new_secret()
        async with connection.transaction():
            new = store.NewKey(secret, name, scope, limits, expires_at)
            made = await store.create(connection, new, at=at)
        if not made:
            raise ConfigurationError(
                f"there is a key called {name!r}, valid or expired; revoke it first"
            )
        click.echo(secret)
        click.echo("Shown this once: keep it where secrets are kept.", err=True)

    on_connection(settings, make)


@keys.command("list")
@with_settings
def list_(settings: Settings) -> None:
    """List all keys there ever were, without the secret part."""

    async def look(connection: Connection) -> None:
        at = now()
        click.echo(f"{'prefix':12} {'state':8} {'scope':6} {'expires':20} {'namespaces':20} name")
        for key in await store.every(connection):
            ends = key.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ") if key.expires_at else "never"
            limits = "all" if key.namespaces is None else ",".join(key.namespaces)
            say(f"{key.prefix:12} {key.state(at):8} {key.scope:6} {ends:20} {limits:20} {key.name}")

    on_connection(settings, look)


@keys.command()
@click.argument("name_or_prefix")
@with_settings
def revoke(settings: Settings, name_or_prefix: str) -> None:
    """Revoke the key of this name or prefix; returns when every server refuses it."""

    async def end(connection: Connection) -> None:
        async with connection.transaction():
            revoked = await store.revoke(connection, name_or_prefix, at=now())
        if not revoked:
            raise NotFound(f"there is no valid key {name_or_prefix!r}")
        servers = await key_cache.wait_until_reloaded(connection, wait_seconds=RELOAD_SECONDS)
        for key in revoked:
            say(f"revoked {key.prefix} {key.name}")
        if servers is None:
            raise ConfigurationError(
                "a server has not read the keys since, or this role may not see whether it has "
                "(pg_read_all_stats); none believes the old ones for more than 2 seconds"
            )
        click.echo(f"known to all servers there are: {servers}")

    on_connection(settings, end)


def expiry(text: str, at: datetime) -> datetime:
    """Parse an expiry: days such as 90d, or a time in the future. Raises ConfigurationError."""
    if days := _DAYS.fullmatch(text):
        return at + timedelta(days=int(days[1]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or moment <= at:
        raise ConfigurationError(
            "--expires: expected days such as 90d, or a time to come such as 2027-01-01T00:00Z"
        )
    return moment.astimezone(UTC)
