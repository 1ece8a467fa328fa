"""A cache of all API keys in the memory of this process, which never serves an outdated key.

A session of its own LISTENs for changes. It reads all keys again after each notification, and at
least once a second. During a reload, and if the last reload is more than two seconds old, the cache
is not valid and each request reads its key from the database. So a revoked key is refused as soon
as the notification arrives. If a notification is lost, the key is refused a second later.
A key that is not in the cache is always read from the database, because it may be new.
"""

import asyncio
import time

import psycopg
import structlog

from indexd.access import Access
from indexd.addresses import can_be_a_key
from indexd.db.checks import STANDBY, no_writes
from indexd.db.pool import Connection, Database
from indexd.db.sessions import maintenance
from indexd.errors import ConfigurationError
from indexd.settings import Settings, secret_from
from indexd.store import keys
from indexd.store.keys import CHANNEL, FOLLOWER, LONGEST, PREFIX, SHORTEST, Key

log = structlog.get_logger()

LOOK_SECONDS = 1.0
"""Seconds between two reloads if no notification comes, and before a lost session is replaced."""

BELIEVED_SECONDS = 2.0
"""Seconds for which the cache is valid after a reload. Longer than LOOK_SECONDS, so that requests
need the database only if reloads fail."""


class KeyCache:
    """Holds the keys while `follow` runs."""

    def __init__(self, url: str, database: Database) -> None:
        self._url = url
        self._database = database
        self._keys: dict[str, tuple[Key, Access]] = {}
        self._believed_until = 0.0

    def remembered(self, secret: str) -> tuple[Key, Access] | None:
        """The key of this prefix, if the cache is valid and has it."""
        if time.monotonic() >= self._believed_until:
            return None
        return self._keys.get(secret[:PREFIX])

    async def asked(self, secret: str) -> tuple[Key, Access] | None:
        """The key of this prefix, from the database. Raises DatabaseUnavailable."""
        if "\x00" in secret:
            return None
        key = await self._database.read(lambda connection: keys.find(connection, secret[:PREFIX]))
        return (key, _access(key)) if key else None

    async def follow(self) -> None:
        """Reload the keys after each change, and every LOOK_SECONDS, until this is cancelled."""
        while True:
            try:
                async with maintenance(self._url, FOLLOWER) as connection:
                    # A standby refuses LISTEN. There the keys are only reloaded each second.
                    if await no_writes(connection) != STANDBY:
                        await connection.execute(f"LISTEN {CHANNEL}")
                    while True:
                        await self._read(connection)
                        async for _ in connection.notifies(timeout=LOOK_SECONDS, stop_after=1):
                            self._believed_until = 0.0
            except ConfigurationError as error:
                log.warning("keys are not followed", cause=error.message)
            except psycopg.Error as error:
                # Until the session is replaced, every request reads its key from the database.
                log.warning("keys are not followed", cause=type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def _read(self, connection: Connection) -> None:
        asked_at = time.monotonic()
        self._keys = {key.prefix: (key, _access(key)) for key in await keys.every(connection)}
        self._believed_until = asked_at + BELIEVED_SECONDS


def admin_secret(settings: Settings) -> str | None:
    """The admin key from its file; None if no file is set. Raises ConfigurationError."""
    if settings.admin_key_file is None:
        return None
    secret = secret_from(settings.admin_key_file, "admin_key_file")
    if not (SHORTEST <= len(secret) <= LONGEST and can_be_a_key(secret)):
        raise ConfigurationError(
            f"admin_key_file: expected one line of {SHORTEST} to {LONGEST} printable characters"
        )
    return secret


def _access(key: Key) -> Access:
    limits = None if key.namespaces is None else frozenset(key.namespaces)
    return Access(key.name, key.scope, limits)


async def wait_until_reloaded(connection: Connection, *, wait_seconds: float) -> int | None:
    """Wait until every server has reloaded its keys.

    Returns the number of servers, or None if one did not reload within `wait_seconds`. The
    connection must not be in a transaction.
    """
    since = await keys.notify_reload(connection)
    deadline = time.monotonic() + wait_seconds
    while True:
        found = await keys.followers(connection, since)
        if not found.stale:
            return found.following
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(0.02)
