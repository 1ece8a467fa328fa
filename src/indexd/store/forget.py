"""Forgetting: the one way documents leave, with its entry in the log."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec
from psycopg.types.json import Jsonb

from indexd.db import Connection

Kind = Literal["manual", "ttl", "retention", "semantic", "delete"]


class Cause(msgspec.Struct, frozen=True):
    """Why documents leave, as the log keeps it."""

    kind: Kind
    reason: str
    actor: str
    at: datetime
    filter: dict[str, Any] | None = None
    strategy: str | None = None


class Forgotten(msgspec.Struct, frozen=True):
    """What one event removed from one namespace; `event_id` is None where nothing was."""

    count: int
    event_id: UUID | None = None


async def delete(
    connection: Connection, namespace: str, doc_id: str, *, at: datetime, actor: str
) -> Forgotten:
    """Remove one document if it is there."""
    cursor = await connection.execute(
        """
        SELECT doc_id
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND doc_id = %(doc_id)s
           FOR UPDATE
        """,
        {"namespace": namespace, "doc_id": doc_id},
    )
    condemned = [found for (found,) in await cursor.fetchall()]
    cause = Cause(kind="delete", reason="deleted by request", actor=actor, at=at)
    return await remove(connection, namespace, condemned, cause)


async def remove(
    connection: Connection, namespace: str, condemned: Sequence[str], cause: Cause
) -> Forgotten:
    """Delete documents that the caller has locked, log and count them, in one statement.

    The lock must come from a statement before this one: chunks that a concurrent upsert wrote
    while the lock was waited for are visible to this one only.
    """
    if not condemned:
        return Forgotten(0)
    event_id = uuid4()
    cursor = await connection.execute(
        """
        WITH gone_chunks AS (
            DELETE FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND doc_id = ANY(%(condemned)s)
            RETURNING namespace
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
               chunks    = chunks    - (SELECT count(*) FROM gone_chunks)
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
    return Forgotten(count, event_id)
