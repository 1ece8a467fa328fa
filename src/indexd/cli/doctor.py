"""`indexd doctor`: checks of an installation, one line each."""

import asyncio
import platform
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import click
import psycopg

from indexd import __version__, embedders, policy
from indexd.background import index_keeper, key_cache
from indexd.cli.common import running_database, with_settings
from indexd.cli.text import say
from indexd.clock import now
from indexd.db.checks import Check
from indexd.db.first_contact import first_contact
from indexd.db.pool import Connection
from indexd.db.sessions import maintenance
from indexd.errors import ConfigurationError, EmbedderUnavailable
from indexd.settings import Settings
from indexd.store import indexes, keys, orphans
from indexd.telemetry import tracing
from indexd.telemetry.metrics import Metrics

CLOCKS_APART = timedelta(seconds=2)
"""The largest accepted difference between this machine's clock and the database's. Decay and expiry
use the server's clock, so the clocks of several servers must agree."""

LEAST_FREE = 0.05
"""Share of the disk that must be free: PostgreSQL stops if the disk is full, and building an index
needs space."""

BESIDE_THE_POOL = 4
"""Connections per process that are not for requests: readiness, keys, keeper, an admin's psql."""


@click.command()
@click.option(
    "--mend",
    is_flag=True,
    help="Delete rows without a document or an event, and count the namespaces again.",
)
@with_settings
def doctor(settings: Settings, mend: bool) -> None:
    """Check versions, settings, embedder, database, clock, indexes, orphaned rows, disk.

    Exit 1 if one is ill. Nothing is changed, unless with --mend.
    """
    well = True
    for check in _look(settings, mend=mend):
        say(str(check))
        well = well and check.ok
    if not well:
        sys.exit(1)


def _look(settings: Settings, *, mend: bool) -> list[Check]:
    found = [
        Check("program", True, f"indexd {__version__} on Python {platform.python_version()}"),
        *_settings(settings),
        asyncio.run(_embedder(settings)),
    ]
    try:
        with running_database(settings) as url:
            found += asyncio.run(_database(url, settings, mend=mend))
    except (psycopg.OperationalError, ConfigurationError, OSError) as error:
        found.append(Check("database", False, _said(error)))
    return found


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error).splitlines()[0]


def _settings(settings: Settings) -> list[Check]:
    found = []
    try:
        loaded = policy.load(settings.policies_path)
        found.append(Check("policies", True, f"{loaded.source}, hash {loaded.hash[:12]}"))
    except ConfigurationError as error:
        found.append(Check("policies", False, error.message))
    address = settings.bind_addr
    if settings.authenticates or settings.is_loopback:
        wanted = "keys are wanted" if settings.authenticates else "open to this machine"
        found.append(Check("access", True, f"{address}: {wanted}"))
    else:
        found.append(Check("access", False, f"{address}: open to all who can reach it"))
    if settings.admin_key_file is not None:
        try:
            key_cache.admin_secret(settings)
            found.append(Check("admin key", True, settings.admin_key_file))
        except ConfigurationError as error:
            found.append(Check("admin key", False, error.message))
    if settings.tracing == "on":
        found.append(_tracing())
    if settings.database_url is None:
        found.append(_disk(settings.data_path))
    return found


def _tracing() -> Check:
    try:
        _, provider = tracing.tracer()
    except ConfigurationError as error:
        return Check("tracing", False, error.message)
    provider.shutdown()
    return Check("tracing", True, "OpenTelemetry is installed")


def _disk(path: Path) -> Check:
    try:
        there = next(one for one in (path, *path.absolute().parents) if one.exists())
        usage = shutil.disk_usage(there)
    except OSError as error:
        return Check("disk", False, _said(error))
    free = usage.free / usage.total
    detail = f"{usage.free / 2**30:.1f} GiB free, {free:.0%}, at {there}"
    return Check("disk", free >= LEAST_FREE, detail)


async def _embedder(settings: Settings) -> Check:
    """Check the embedder by its first contact, which embeds a word."""
    try:
        embedder = embedders.of(settings, Metrics())
        if embedder is None:
            return Check("embedder", True, "none configured")
        async with embedder:
            await embedder.contact()
            return Check("embedder", True, embedder.describe())
    except (ConfigurationError, EmbedderUnavailable) as error:
        return Check("embedder", False, error.message)


async def _database(url: str, settings: Settings, *, mend: bool) -> list[Check]:
    """Check the database. `url` is the one for maintenance; requests use that of the settings."""
    found = await first_contact(settings.database_url or url, settings)
    if all(check.ok for check in found):
        async with maintenance(url, "indexd doctor") as connection:
            found += [check async for check in _inside(connection, settings)]
            found.append(await _orphans(connection, mend=mend))
    return found


async def _inside(connection: Connection, settings: Settings) -> AsyncIterator[Check]:
    cursor = await connection.execute("""
        SELECT clock_timestamp(),
               current_setting('max_connections')::int,
               pg_database_size(current_database())
    """)
    row = await cursor.fetchone()
    if row is None:
        return
    at, connections, size = row
    apart = abs(now() - at)
    yield Check("clock", apart < CLOCKS_APART, f"{apart.total_seconds():.1f} s from the database's")
    wanted = settings.workers * (settings.pool_size + BESIDE_THE_POOL)
    yield Check(
        "connections",
        wanted < connections,
        f"one server takes up to {wanted}, the database allows {connections}",
    )
    yield Check("size", True, f"{size / 2**20:,.0f} MiB")
    yield await _indexes(connection, settings)
    if settings.authenticates or settings.admin_key_file is not None:
        yield await _keys(connection, settings)


async def _orphans(connection: Connection, *, mend: bool) -> Check:
    found = await (orphans.mend(connection) if mend else orphans.find(connection))
    if not found:
        return Check("orphans", True, "every row has its document, every count is right")
    if mend:
        return Check("orphans", True, str(found), "mended")
    return Check("orphans", False, f"{found}: run `indexd doctor --mend`")


async def _keys(connection: Connection, settings: Settings) -> Check:
    at = now()
    admins = sum(
        key.scope == "admin" and key.state(at) == "valid" for key in await keys.every(connection)
    )
    secret = None
    with suppress(ConfigurationError):  # the check "admin key" reports it
        secret = key_cache.admin_secret(settings)
    try:
        if secret is not None and not await keys.known_from_file(connection, secret, at=at):
            return Check("keys", True, f"{admins} for admins; the next start adds the file's")
    except ConfigurationError as error:
        return Check("keys", False, error.message)
    if admins:
        return Check("keys", True, f"{admins} for admins")
    return Check("keys", False, "none for admins: `indexd keys create`")


async def _indexes(connection: Connection, settings: Settings) -> Check:
    namespaces = await indexes.look(connection)
    obstacle = await indexes.obstacle(connection)
    serving = sum(one.serving is not None for one in namespaces)
    wanted = sum(
        not one.serving for one in indexes.earning(namespaces, index_keeper.rules(settings))
    )
    broken = [
        index.name
        for one in namespaces
        for index in one.indexes
        if not index.valid and index.done is None
    ]
    detail = f"{serving} serve, {wanted} wanted, {len(broken)} broken"
    if obstacle is not None:
        # The progress of another role's build is not visible, so its index looks broken until then.
        detail = f"{serving} serve, {wanted} wanted, {len(broken)} unfinished; {obstacle}"
        return Check("indexes", True, detail, "left to others" if wanted or broken else None)
    if broken:
        detail += "; a running server builds them anew"
    return Check("indexes", not broken, detail)
