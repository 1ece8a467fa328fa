"""The keeper: gives namespaces the HNSW indexes they earn, in the background.

Every server process runs one, and a lock lets one of them work at a time; what it does, it derives
anew from the database each round, so a keeper that is killed leaves nothing that the next does not
find: an index whose build was cut off is invalid, is dropped and built again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
import psycopg
import structlog
from psycopg.pq import TransactionStatus

from indexd.db.pool import Connection, checks, no_writes, versions
from indexd.db.sessions import maintenance
from indexd.errors import ConfigurationError
from indexd.settings import Settings
from indexd.store import indexes
from indexd.store.forgetting import plans
from indexd.store.indexes import Namespace, Rules
from indexd.store.search import age_histogram as ages

log = structlog.get_logger()

IDLE = TransactionStatus.IDLE
LOCK = "hashtextextended('indexd:keeper', 0)"


def rules(settings: Settings) -> Rules:
    return Rules(
        threshold=settings.index_threshold,
        limit=settings.index_limit,
        worn_share=settings.index_worn_share,
        m=settings.hnsw_m,
        ef_construction=settings.hnsw_ef_construction,
    )


async def keep(
    url: str,
    settings: Settings,
    built: Callable[[], None] = lambda: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Keep the indexes, round after round, for ever; a build may be cut off at any time.

    Each round first deletes the plans that expired, for a build may take long.
    """
    told: str | None = None
    while True:
        try:
            async with maintenance(url, "indexd keeper") as connection:
                while True:
                    async with lock(connection, settings.keeper_interval_seconds):
                        obstacle = await _round(connection, settings, built, now())
                    if obstacle != told:
                        told = obstacle
                        _say(obstacle)
                    if await no_writes(connection):
                        break  # a session keeps the read-only default that it began with
                    await asyncio.sleep(settings.keeper_interval_seconds)
        except psycopg.Error as error:
            # The database went away, or a statement collided: the next round starts over.
            log.warning("index keeper interrupted", cause=type(error).__name__)
        except ConfigurationError as error:
            log.warning("index keeper cannot work", cause=error.message)
        except Exception:
            log.exception("index keeper failed")
        await asyncio.sleep(settings.keeper_interval_seconds)


async def _round(
    connection: Connection, settings: Settings, built: Callable[[], None], at: datetime
) -> str | None:
    """Answers why the indexes had to be left as they are, if they had to."""
    # The keeper of a program too old for the schema must not touch its indexes.
    ill = [check for check in checks(await versions(connection)) if not check.ok]
    if ill:
        return str(ill[0])
    await plans.drop_expired(connection, at=at)
    return await keep_once(connection, rules(settings), built)


def _say(obstacle: str | None) -> None:
    if obstacle is None:
        log.info("indexes are built here again")
    else:
        log.warning("indexes are not built here", cause=obstacle)


@asynccontextmanager
async def lock(connection: Connection, interval: float) -> AsyncIterator[None]:
    """Wait until no other keeper works, by polling, and work alone.

    One that waits inside of pg_advisory_lock holds a snapshot, for which CREATE INDEX CONCURRENTLY
    in the other would wait: a deadlock.
    """
    while True:
        cursor = await connection.execute(f"SELECT pg_try_advisory_lock({LOCK})")
        if (await cursor.fetchone() or (False,))[0]:
            break
        await asyncio.sleep(interval)
    try:
        yield
    finally:
        if not connection.closed and connection.info.transaction_status == IDLE:
            await connection.execute(f"SELECT pg_advisory_unlock({LOCK})")


async def keep_once(
    connection: Connection, wanted: Rules, built: Callable[[], None] = lambda: None
) -> str | None:
    """Bring all indexes to what they should be. The caller holds the lock.

    `built` is called for each index that was built. Answers the obstacle where the indexes had to
    be left as they are.
    """
    obstacle = await indexes.obstacle(connection)
    namespaces = await indexes.look(connection)
    earning = indexes.earning(namespaces, wanted)
    if obstacle is not None:
        if not await no_writes(connection):
            await _count_ages(connection, earning)
        return obstacle
    for namespace in namespaces:
        await _drop_others(connection, namespace, earns=namespace in earning)
    await _count_ages(connection, earning)
    for namespace in earning:
        if not namespace.serving:
            await _build(connection, namespace, wanted)
            built()
        elif namespace.worn(wanted):
            log.info("rebuilding index", namespace=namespace.name, removed=namespace.dead)
            await indexes.rebuild(connection, namespace)
            await indexes.note_built(connection, namespace)
            built()
            log.info("rebuilt index", index=namespace.wanted, namespace=namespace.name)
    return None


async def _count_ages(connection: Connection, namespaces: Sequence[Namespace]) -> None:
    for name in await ages.stale(connection, [namespace.name for namespace in namespaces]):
        await ages.count(connection, name, at=datetime.now(UTC))


async def keep_one(connection: Connection, name: str, wanted: Rules) -> None:
    """Bring the index of one namespace to what its mode says, `always` or `never`, and touch no
    other. The caller holds the lock.
    """
    namespaces = [one for one in await indexes.look(connection) if one.name == name]
    # The limit is over all namespaces, and this one was asked for by name.
    earning = indexes.earning(namespaces, msgspec.structs.replace(wanted, limit=1))
    for namespace in namespaces:
        await _drop_others(connection, namespace, earns=bool(earning))
    await _count_ages(connection, earning)
    for namespace in earning:
        if not namespace.serving:
            await _build(connection, namespace, wanted)


async def _drop_others(connection: Connection, namespace: Namespace, *, earns: bool) -> None:
    """Its indexes but the one that serves, and that as well unless it earns one."""
    for index in namespace.indexes:
        if not (index.valid and index.name == namespace.wanted and earns):
            await indexes.drop(connection, index.name)
            log.info("dropped index", index=index.name, namespace=namespace.name)


async def _build(connection: Connection, namespace: Namespace, wanted: Rules) -> None:
    log.info("building index", namespace=namespace.name, chunks=namespace.chunks)
    # The planner must know how many chunks have this dimension before it trusts the index.
    await connection.execute("ANALYZE indexd.chunks")
    await indexes.build(connection, namespace, wanted)
    await indexes.note_built(connection, namespace)
    log.info("built index", index=namespace.wanted, namespace=namespace.name)
