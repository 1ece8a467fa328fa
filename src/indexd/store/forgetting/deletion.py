"""The one way documents leave, whatever the reason: deleted, logged and counted in one statement.

hold, then lock, then remove: in this order, and each a statement of its own.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec
from psycopg.types.json import Jsonb

from indexd.db.pool import Connection
from indexd.store import policies

Kind = Literal["manual", "ttl", "retention", "semantic", "delete"]


class Cause(msgspec.Struct, frozen=True):
    """Why documents leave, as the log keeps it."""

    kind: Kind
    reason: str
    actor: str
    at: datetime
    filter: dict[str, Any] | None = None
    strategy: str | None = None


class Departure(msgspec.Struct, frozen=True):
    """What one event removed from one namespace."""

    namespace: str
    kind: Kind
    strategy: str | None
    count: int
    event_id: UUID


async def hold(connection: Connection, namespace: str) -> None:
    """Where documents are counted, writers come one by one: before any lock on a document."""
    await connection.execute(
        f"""
        SELECT
          FROM indexd.namespaces
         WHERE namespace = %(namespace)s
           AND ({policies.holding("max_items")}) IS NOT NULL
           FOR NO KEY UPDATE
        """,
        {"namespace": namespace},
    )


async def lock(
    connection: Connection, namespace: str, doc_ids: Sequence[str]
) -> dict[str, datetime]:
    """Hold those of the documents that are there; answers their ingested_at."""
    if not doc_ids:
        return {}
    cursor = await connection.execute(
        """
        SELECT doc_id, ingested_at
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(doc_ids)s)
         ORDER BY doc_id
           FOR UPDATE
        """,
        {"namespace": namespace, "doc_ids": list(doc_ids)},
    )
    return dict(await cursor.fetchall())


async def remove(
    connection: Connection,
    namespace: str,
    condemned: Sequence[str],
    cause: Cause,
    *,
    event_id: UUID | None = None,
) -> Departure | None:
    """Delete documents that the caller has locked, log and count them, in one statement.

    The lock must come from a statement before this one: chunks that a concurrent upsert wrote
    while the lock was waited for are visible to this one only.
    """
    if not condemned:
        return None
    event_id = event_id or uuid4()
    cursor = await connection.execute(
        """
        WITH gone_chunks AS (
            DELETE FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND doc_id = ANY(%(condemned)s)
            RETURNING namespace
        ),
        gone_relevance AS (
            DELETE FROM indexd.relevance
             WHERE namespace = %(namespace)s
               AND doc_id = ANY(%(condemned)s)
        ),
        gone AS (
            DELETE FROM indexd.documents
             WHERE namespace = %(namespace)s
               AND doc_id = ANY(%(condemned)s)
            RETURNING namespace, doc_id, ingested_at, digest
        ),
        listed AS (
            INSERT INTO indexd.forgotten_documents (
                namespace, event_id, doc_id, ingested_at, digest
            )
            SELECT namespace, %(event_id)s, doc_id, ingested_at, digest
              FROM gone
        ),
        logged AS (
            INSERT INTO indexd.forget_events (
                namespace, event_id, at, kind, reason, filter, strategy, forgotten_count, actor
            )
            SELECT %(namespace)s, %(event_id)s, %(at)s, %(kind)s, %(reason)s, %(filter)s,
                   %(strategy)s, count(*), %(actor)s
              FROM gone
        )
        UPDATE indexd.namespaces
           SET documents = documents - (SELECT count(*) FROM gone),
               chunks    = chunks    - (SELECT count(*) FROM gone_chunks),
               chunks_removed = chunks_removed + (SELECT count(*) FROM gone_chunks)
         WHERE namespace = %(namespace)s
        RETURNING (SELECT count(*) FROM gone)
        """,
        {
            "namespace": namespace,
            "condemned": list(condemned),
            "event_id": event_id,
            "at": cause.at,
            "kind": cause.kind,
            "reason": cause.reason,
            "filter": None if cause.filter is None else Jsonb(cause.filter),
            "strategy": cause.strategy,
            "actor": cause.actor,
        },
    )
    [count] = await cursor.fetchone() or (0,)
    return Departure(namespace, cause.kind, cause.strategy, count, event_id)
