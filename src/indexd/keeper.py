"""The keeper: gives namespaces the HNSW indexes they earn, in the background.

Every server process runs one, and a lock lets one of them work at a time; what it does, it derives
anew from the database each round, so a keeper that is killed leaves nothing that the next does not
find: an index whose build was cut off is invalid, is dropped and built again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import psycopg
import structlog
from psycopg.pq import TransactionStatus

from indexd.db import Connection, checks, versions
from indexd.settings import Settings
from indexd.store import ages, indexes
from indexd.store.indexes import Rules
from indexd.urls import libpq_url

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


async def keep(url: str, settings: Settings, built: Callable[[], None] = lambda: None) -> None:
    """Keep the indexes, round after round, for ever; a build may be cut off at any time."""
    while True:
        try:
            async with connected(url) as connection:
                while True:
                    async with lock(connection, settings.keeper_interval_seconds):
                        # The keeper of a program too old for the schema must not touch its indexes.
                        if all(check.ok for check in checks(await versions(connection))):
                            await keep_once(connection, rules(settings), built)
                    await asyncio.sleep(settings.keeper_interval_seconds)
        except psycopg.Error as error:
            # The database went away, or a statement collided: the next round starts over.
            log.warning("index keeper interrupted", cause=type(error).__name__)
        except Exception:
            log.exception("index keeper failed")
        await asyncio.sleep(settings.keeper_interval_seconds)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection of the keeper's own, on which a build may take as long as it takes."""
    async with await psycopg.AsyncConnection.connect(
        libpq_url(url),
        autocommit=True,
        application_name="indexd keeper",
        connect_timeout=5,
    ) as connection:
        yield connection


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
) -> None:
    """Bring all indexes to what they should be. The caller holds the lock.

    `built` is called for each index that was built.
    """
    namespaces = await indexes.look(connection)
    earning = indexes.earning(namespaces, wanted)
    for namespace in namespaces:
        for index in namespace.indexes:
            if not (index.valid and index.name == namespace.wanted and namespace in earning):
                await indexes.drop(connection, index.name)
                log.info("dropped index", index=index.name, namespace=namespace.name)
    for name in await ages.stale(connection, [namespace.name for namespace in earning]):
        await ages.count(connection, name, at=datetime.now(UTC))
    for namespace in earning:
        if not namespace.serving:
            log.info("building index", namespace=namespace.name, chunks=namespace.chunks)
            # The planner must know how many chunks have this dimension before it trusts the index.
            await connection.execute("ANALYZE indexd.chunks")
            await indexes.build(connection, namespace, wanted)
            await indexes.note_built(connection, namespace)
            built()
            log.info("built index", index=namespace.wanted, namespace=namespace.name)
        elif namespace.worn(wanted):
            log.info("rebuilding index", namespace=namespace.name, removed=namespace.dead)
            await indexes.rebuild(connection, namespace)
            await indexes.note_built(connection, namespace)
            built()
            log.info("rebuilt index", index=namespace.wanted, namespace=namespace.name)
