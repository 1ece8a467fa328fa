"""The index keeper: builds and drops HNSW indexes in the background, by the size of namespaces.

Every server process runs a keeper, and an advisory lock lets one of them work at a time. Each round
reads the state of all indexes from the database; the keeper remembers nothing. So a keeper may be
killed at any time: an index whose build was interrupted is invalid, and the next round drops it and
builds it again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
import psycopg
import structlog
from psycopg.pq import TransactionStatus

from indexd.db.checks import checks, no_writes, versions
from indexd.db.pool import Connection
from indexd.db.sessions import maintenance
from indexd.errors import ConfigurationError
from indexd.settings import Settings
from indexd.store import indexes
from indexd.store.forgetting import plans
from indexd.store.indexes import Namespace, Rules
from indexd.store.search import age_histogram as ages
from indexd.store.search import term_counts

log = structlog.get_logger()

IDLE = TransactionStatus.IDLE
LOCK = "hashtextextended('indexd:keeper', 0)"
"""SQL: the number of the advisory lock that a working keeper holds."""


def rules(settings: Settings) -> Rules:
    """The settings that decide which namespaces get an index."""
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
    """Run a round every `keeper_interval_seconds` until this is cancelled, also during a build.

    Each round deletes expired forget plans and counts words first, because a build can take hours.
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
                        break  # reconnect: a session keeps the read-only default it began with
                    await asyncio.sleep(settings.keeper_interval_seconds)
        except psycopg.Error as error:
            # The connection was lost, or a statement collided: the next round starts from scratch.
            log.warning("index keeper interrupted", cause=type(error).__name__)
        except ConfigurationError as error:
            log.warning("index keeper cannot work", cause=error.message)
        except Exception:
            log.exception("index keeper failed")
        await asyncio.sleep(settings.keeper_interval_seconds)


async def _round(
    connection: Connection, settings: Settings, built: Callable[[], None], at: datetime
) -> str | None:
    """Do one round. Returns the reason if the indexes could not be changed, else None."""
    # The keeper of a program too old for the schema must not touch its indexes.
    ill = [check for check in checks(await versions(connection)) if not check.ok]
    if ill:
        return str(ill[0])
    if not await no_writes(connection):
        await plans.drop_expired(connection, at=at)
        await count_terms(connection, at)
    return await keep_once(connection, rules(settings), built)


async def count_terms(connection: Connection, at: datetime) -> None:
    """Count and weigh the words of the namespaces that have changed enough."""
    for namespace in await term_counts.due(connection):
        await term_counts.keep(connection, namespace, at=at)


def _say(obstacle: str | None) -> None:
    if obstacle is None:
        log.info("indexes are built here again")
    else:
        log.warning("indexes are not built here", cause=obstacle)


@asynccontextmanager
async def lock(connection: Connection, interval: float) -> AsyncIterator[None]:
    """Hold the keeper's advisory lock; poll for it every `interval` seconds.

    Polling avoids a deadlock: a session that waits in pg_advisory_lock holds a snapshot, and CREATE
    INDEX CONCURRENTLY in the other keeper would wait for that snapshot to end.
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
    """Drop, build and rebuild indexes as the rules demand. The caller holds the lock.

    `built` is called for each index that was built. Returns the reason if the indexes could not be
    changed, else None.
    """
    obstacle = await indexes.obstacle(connection)
    namespaces = await indexes.look(connection)
    if not await no_writes(connection):
        await _correct(connection, namespaces)
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


async def _correct(connection: Connection, namespaces: Sequence[Namespace]) -> None:
    """Note which indexes serve where somebody else built, broke or dropped one."""
    for namespace in namespaces:
        serves = namespace.serving is not None
        if namespace.serves != serves:
            await indexes.note_serves(connection, namespace, serves=serves)


async def _count_ages(connection: Connection, namespaces: Sequence[Namespace]) -> None:
    for name in await ages.stale(connection, [namespace.name for namespace in namespaces]):
        await ages.count(connection, name, at=datetime.now(UTC))


async def keep_one(connection: Connection, name: str, wanted: Rules) -> None:
    """Build or drop the index of one namespace, as its mode `always` or `never` demands.

    Indexes of other namespaces are not changed. The caller holds the lock.
    """
    namespaces = [one for one in await indexes.look(connection) if one.name == name]
    # INDEXD_INDEX_LIMIT counts all namespaces; an index that an admin asked for is built anyway.
    earning = indexes.earning(namespaces, msgspec.structs.replace(wanted, limit=1))
    for namespace in namespaces:
        await _drop_others(connection, namespace, earns=bool(earning))
    await _count_ages(connection, earning)
    for namespace in earning:
        if not namespace.serving:
            await _build(connection, namespace, wanted)


async def _drop_others(connection: Connection, namespace: Namespace, *, earns: bool) -> None:
    """Drop the indexes of a namespace, except the valid one if the namespace earns an index."""
    for index in namespace.indexes:
        if not (index.valid and index.name == namespace.wanted and earns):
            if index.name == namespace.wanted:
                # Before: no search may be planned with an index that is gone.
                await indexes.note_serves(connection, namespace, serves=False)
            await indexes.drop(connection, index.name)
            log.info("dropped index", index=index.name, namespace=namespace.name)


async def _build(connection: Connection, namespace: Namespace, wanted: Rules) -> None:
    log.info("building index", namespace=namespace.name, chunks=namespace.chunks)
    # The planner must know how many chunks have this dimension before it trusts the index.
    await connection.execute("ANALYZE indexd.chunks")
    await indexes.build(connection, namespace, wanted)
    await indexes.note_built(connection, namespace)
    await indexes.note_serves(connection, namespace, serves=True)
    log.info("built index", index=namespace.wanted, namespace=namespace.name)
