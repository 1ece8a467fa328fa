"""API keys, hashed; every change notifies the servers that follow them."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from indexd.access import Scope
from indexd.db.pool import Connection
from indexd.errors import ConfigurationError

CHANNEL = "indexd_api_keys"

FOLLOWER = "indexd keys"
"""The application_name of the sessions that follow the changes, one per server process."""

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


_FIELDS = ", ".join(Key.__struct_fields__)


def new_secret() -> str:
    """A key as a client sends it: 40 bits to recognise it by, 256 that nobody can guess."""
    return f"ixd_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> bytes:
    """A key is random and long, so a fast hash is as good as a slow one."""
    return hashlib.sha256(secret.encode()).digest()


def matches(key: Key | None, secret: str) -> bool:
    """In constant time, also where there is no such key."""
    return hmac.compare_digest(key.digest if key else bytes(32), digest(secret)) and key is not None


async def create(
    connection: Connection,
    secret: str,
    *,
    name: str,
    scope: Scope,
    namespaces: Sequence[str] | None,
    at: datetime,
    expires_at: datetime | None = None,
) -> bool:
    """False where the prefix is taken, or the name by a key that was not revoked."""
    cursor = await connection.execute(
        """
        INSERT INTO indexd.api_keys (
            prefix, name, digest, scope, namespaces, created_at, expires_at
        )
        VALUES (
            %(prefix)s, %(name)s, %(digest)s, %(scope)s, %(namespaces)s, %(at)s, %(expires_at)s
        )
        ON CONFLICT DO NOTHING
        """,
        {
            "prefix": secret[:PREFIX],
            "name": name,
            "digest": digest(secret),
            "scope": scope,
            "namespaces": None if namespaces is None else list(namespaces),
            "at": at,
            "expires_at": expires_at,
        },
    )
    await _notify(connection)
    return cursor.rowcount > 0


async def revoke(connection: Connection, name_or_prefix: str, *, at: datetime) -> list[Key]:
    """Those that were valid and are no more."""
    cursor = await connection.execute(
        f"""
        UPDATE indexd.api_keys
           SET revoked_at = %(at)s
         WHERE (name = %(key)s OR prefix = %(key)s)
           AND revoked_at IS NULL
        RETURNING {_FIELDS}
        """,
        {"key": name_or_prefix, "at": at},
    )
    await _notify(connection)
    return [Key(*row) for row in await cursor.fetchall()]


async def ensure_from_file(connection: Connection, secret: str, *, at: datetime) -> None:
    """Make this an admin key, and revoke the one that the file held before.

    Raises ConfigurationError as `known_from_file` does, so a key that was revoked stays so.
    """
    if await known_from_file(connection, secret, at=at):
        return  # without a lock, which a database that takes no writes refuses
    # Two servers that start at once: one after the other.
    await connection.execute("LOCK TABLE indexd.api_keys IN SHARE ROW EXCLUSIVE MODE")
    if not await known_from_file(connection, secret, at=at):
        await revoke(connection, FROM_FILE, at=at)
        await create(connection, secret, name=FROM_FILE, scope="admin", namespaces=None, at=at)


async def known_from_file(connection: Connection, secret: str, *, at: datetime) -> bool:
    """Whether this is an admin key already; raises ConfigurationError where it can't become one."""
    there = await find(connection, secret[:PREFIX])
    if there is None:
        return False
    if not matches(there, secret):
        raise ConfigurationError("admin_key_file: another key starts with the same 12 characters")
    if there.state(at) != "valid":
        how = "has expired" if there.revoked_at is None else "was revoked"
        raise ConfigurationError(f"admin_key_file: the key in it {how}; put a new one there")
    if there.scope != "admin" or there.namespaces is not None:
        limits = "" if there.namespaces is None else " and limited to namespaces"
        raise ConfigurationError(
            f"admin_key_file: the key in it, {there.name!r}, has scope {there.scope}{limits}; "
            "put one there that may do everything"
        )
    return True


async def notify_reload(connection: Connection) -> datetime:
    """Have all servers read the keys again; answers the database's time before that."""
    cursor = await connection.execute("SELECT clock_timestamp()")
    row: tuple[datetime] = await cursor.fetchone() or (datetime.max.replace(tzinfo=UTC),)
    await _notify(connection)
    return row[0]


async def _notify(connection: Connection) -> None:
    await connection.execute("SELECT pg_notify(%(channel)s, '')", {"channel": CHANNEL})


async def find(connection: Connection, prefix: str) -> Key | None:
    cursor = await connection.execute(
        f"""
        SELECT {_FIELDS}
          FROM indexd.api_keys
         WHERE prefix = %(prefix)s
        """,
        {"prefix": prefix},
    )
    row = await cursor.fetchone()
    return Key(*row) if row else None


async def every(connection: Connection) -> list[Key]:
    """All keys there ever were, oldest first."""
    cursor = await connection.execute(
        f"SELECT {_FIELDS} FROM indexd.api_keys ORDER BY created_at, prefix"
    )
    return [Key(*row) for row in await cursor.fetchall()]


async def stale_servers(connection: Connection, since: datetime) -> tuple[int, int]:
    """How many servers follow the keys, and how many may not have looked since then."""
    cursor = await connection.execute(
        """
        SELECT count(*),
               -- Both are null where this role may not see into another's sessions.
               count(*) FILTER (WHERE (query_start > %(since)s AND state = 'idle') IS NOT TRUE)
          FROM pg_stat_activity
         WHERE application_name = %(follower)s
           AND datname = current_database()
        """,
        {"follower": FOLLOWER, "since": since},
    )
    following, behind = await cursor.fetchone() or (0, 0)
    return following, behind
