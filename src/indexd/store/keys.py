"""API keys, stored as hashes; every change notifies the servers that cache them."""

import hashlib
import hmac
import secrets
from datetime import datetime

import msgspec

from indexd.access import Scope
from indexd.db.pool import Connection
from indexd.errors import ConfigurationError
from indexd.store import rows

CHANNEL = "indexd_api_keys"

FOLLOWER = "indexd keys"
"""The application_name of the sessions that listen for changes, one per server process."""

PREFIX = 12
"""Characters of a key that are shown: `ixd_` and eight that tell keys apart."""

SHORTEST, LONGEST = 32, 512
"""Characters of a key that an operator made; the API looks at no longer one."""

FROM_FILE = "admin-key-file"
"""The name of the key that INDEXD_ADMIN_KEY_FILE holds."""


class Key(msgspec.Struct, frozen=True):
    prefix: str
    name: str
    digest: bytes
    scope: Scope
    namespaces: list[str] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def state(self, at: datetime) -> str:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= at else "valid"


class NewKey(msgspec.Struct, frozen=True):
    """A key to be made; `namespaces` None is all, `expires_at` None is never."""

    secret: str
    name: str
    scope: Scope
    namespaces: list[str] | None = None
    expires_at: datetime | None = None


_FIELDS = ", ".join(Key.__struct_fields__)


def new_secret() -> str:
    """A key as a client sends it: 40 bits to recognise it by, 256 that nobody can guess."""
    return f"ixd_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> bytes:
    """A key is random and long, so a fast hash is as good as a slow one."""
    return hashlib.sha256(secret.encode()).digest()


def matches(key: Key | None, secret: str) -> bool:
    """Whether it is this key; takes the same time where there is no such key."""
    return hmac.compare_digest(key.digest if key else bytes(32), digest(secret)) and key is not None


INSERT = """
    /* indexd:keys.insert */
    INSERT INTO indexd.api_keys (
        prefix, name, digest, scope, namespaces, created_at, expires_at
    )
    VALUES (
        %(prefix)s, %(name)s, %(digest)s, %(scope)s, %(namespaces)s, %(at)s, %(expires_at)s
    )
    ON CONFLICT DO NOTHING
"""


async def create(connection: Connection, new: NewKey, *, at: datetime) -> bool:
    """Store the hash of a new key, and have all servers read the keys again.

    False where the prefix is taken, or the name by a key that was not revoked.
    """
    cursor = await connection.execute(
        INSERT,
        {
            "prefix": new.secret[:PREFIX],
            "name": new.name,
            "digest": digest(new.secret),
            "scope": new.scope,
            "namespaces": new.namespaces,
            "at": at,
            "expires_at": new.expires_at,
        },
    )
    await _notify(connection)
    return cursor.rowcount > 0


REVOKE = f"""
    /* indexd:keys.revoke */
    UPDATE indexd.api_keys
       SET revoked_at = %(at)s
     WHERE (name = %(key)s OR prefix = %(key)s)
       AND revoked_at IS NULL
    RETURNING {_FIELDS}
"""


async def revoke(connection: Connection, name_or_prefix: str, *, at: datetime) -> list[Key]:
    """Revoke the keys of this name or prefix; returns those that were not revoked before."""
    revoked = await rows.every(connection, Key, REVOKE, {"key": name_or_prefix, "at": at})
    await _notify(connection)
    return revoked


LOCK = """
    /* indexd:keys.lock */
    LOCK TABLE indexd.api_keys IN SHARE ROW EXCLUSIVE MODE
"""


async def ensure_from_file(connection: Connection, secret: str, *, at: datetime) -> None:
    """Make this an admin key, and revoke the one that the file held before.

    Atomic in the caller's transaction. Where the key exists nothing is locked, for a database that
    takes no writes refuses the lock; otherwise the table is locked against other writers, so that
    two servers that start at the same time do this one after the other. Raises ConfigurationError
    as `known_from_file` does, so a key that was revoked stays revoked.
    """
    if await known_from_file(connection, secret, at=at):
        return
    await connection.execute(LOCK)
    if not await known_from_file(connection, secret, at=at):
        await revoke(connection, FROM_FILE, at=at)
        await create(connection, NewKey(secret, FROM_FILE, "admin"), at=at)


async def known_from_file(connection: Connection, secret: str, *, at: datetime) -> bool:
    """Whether this is an admin key already; raises ConfigurationError where it can't become one."""
    found = await find(connection, secret[:PREFIX])
    if found is None:
        return False
    if not matches(found, secret):
        raise ConfigurationError("admin_key_file: another key starts with the same 12 characters")
    if found.state(at) != "valid":
        how = "has expired" if found.revoked_at is None else "was revoked"
        raise ConfigurationError(f"admin_key_file: the key in it {how}; put a new one there")
    if found.scope != "admin" or found.namespaces is not None:
        limits = "" if found.namespaces is None else " and limited to namespaces"
        raise ConfigurationError(
            f"admin_key_file: the key in it, {found.name!r}, has scope {found.scope}{limits}; "
            "put one there that may do everything"
        )
    return True


CLOCK = """
    /* indexd:keys.clock */
    SELECT clock_timestamp() AS at
"""


async def notify_reload(connection: Connection) -> datetime:
    """Have all servers read the keys again; returns the database's time just before."""
    at: datetime = await rows.value(connection, CLOCK, {})
    await _notify(connection)
    return at


NOTIFY = """
    /* indexd:keys.notify */
    SELECT pg_notify(%(channel)s, '')
"""


async def _notify(connection: Connection) -> None:
    await connection.execute(NOTIFY, {"channel": CHANNEL})


FIND = f"""
    /* indexd:keys.find */
    SELECT {_FIELDS}
      FROM indexd.api_keys
     WHERE prefix = %(prefix)s
"""


async def find(connection: Connection, prefix: str) -> Key | None:
    """The key with this prefix, also one that expired or was revoked."""
    return await rows.first(connection, Key, FIND, {"prefix": prefix})


EVERY = f"""
    /* indexd:keys.every */
    SELECT {_FIELDS}
      FROM indexd.api_keys
     ORDER BY created_at, prefix
"""


async def every(connection: Connection) -> list[Key]:
    """All keys, also those that expired or were revoked, oldest first."""
    return await rows.every(connection, Key, EVERY, {})


class Followers(msgspec.Struct, frozen=True):
    """Servers that cache the keys: all of them, and those that may not have read them since."""

    following: int
    stale: int


FOLLOWERS = """
    /* indexd:keys.followers */
    SELECT count(*) AS following,
           -- Both columns are NULL where this role may not see another role's sessions.
           count(*) FILTER (
               WHERE (query_start > %(since)s AND state = 'idle') IS NOT TRUE
           ) AS stale
      FROM pg_stat_activity
     WHERE application_name = %(follower)s
       AND datname = current_database()
"""


async def followers(connection: Connection, since: datetime) -> Followers:
    """Count the servers that cache the keys, and those that may not have read them since then."""
    found = await rows.first(
        connection, Followers, FOLLOWERS, {"follower": FOLLOWER, "since": since}
    )
    return found or Followers(0, 0)
