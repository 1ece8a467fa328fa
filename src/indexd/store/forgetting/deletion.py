"""The one way documents leave, whatever the reason: deleted, logged and counted in one statement.

Call `hold`, then `lock`, then `remove`: in this order, and each as a statement of its own. So every
transaction takes its locks in the same order:

    hold     the namespace's row, where max_items makes writers come one by one
    lock     the documents' rows, by doc_id
    remove   the rows that belong to the documents, and last the namespace's row for its counters
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec
from psycopg.types.json import Jsonb

from indexd.db.pool import Connection
from indexd.store import policies, rows
from indexd.store.visible import live

Kind = Literal["manual", "ttl", "retention", "semantic", "delete"]


class Cause(msgspec.Struct, frozen=True):
    """Why documents leave, as the log keeps it."""

    kind: Kind
    reason: str
    actor: str
    at: datetime
    filter: dict[str, Any] | None = None
    strategy: str | None = None


class Deletion(msgspec.Struct, frozen=True):
    """What one event deleted from one namespace; `count` is the number of documents."""

    namespace: str
    kind: Kind
    strategy: str | None
    count: int
    event_id: UUID


HOLD = f"""
    /* indexd:forgetting.deletion.hold */
    SELECT
      FROM indexd.namespaces
     WHERE namespace = %(namespace)s
       AND ({policies.holding("max_items")}) IS NOT NULL
       FOR NO KEY UPDATE
"""


async def hold(connection: Connection, namespace: str) -> None:
    """Lock the namespace's row if its policy has max_items, until the end of the transaction.

    max_items needs the exact number of documents, so writers of such a namespace come one by one.
    Call it before any lock on a document: upserts lock in this order, too.
    """
    await connection.execute(HOLD, {"namespace": namespace})


class _Locked(msgspec.Struct, frozen=True):
    doc_id: str
    ingested_at: datetime


LOCK = """
    /* indexd:forgetting.deletion.lock */
    SELECT doc_id, ingested_at
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(doc_ids)s)
     ORDER BY doc_id
       FOR UPDATE
"""


async def lock(
    connection: Connection, namespace: str, doc_ids: Sequence[str]
) -> dict[str, datetime]:
    """Lock the rows of these documents; returns those that exist, with their ingested_at."""
    if not doc_ids:
        return {}
    found = await rows.every(
        connection, _Locked, LOCK, {"namespace": namespace, "doc_ids": list(doc_ids)}
    )
    return {one.doc_id: one.ingested_at for one in found}


STORED = f"""
    /* indexd:forgetting.deletion.stored */
    SELECT doc_id
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(doc_ids)s)
       AND {live()}
"""


async def stored(
    connection: Connection, namespace: str, doc_ids: Sequence[str], *, at: datetime
) -> set[str]:
    """Those of the documents that are stored and have not expired; nothing is locked."""
    values = {"namespace": namespace, "doc_ids": list(doc_ids), "at": at}
    return set(await rows.column(connection, STORED, values))


REMOVE = """
    /* indexd:forgetting.deletion.remove */
    WITH
    -- 1. Delete the documents with everything that belongs to them.
    deleted_chunks AS (
        DELETE FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(condemned)s)
        RETURNING namespace
    ),
    deleted_fields AS (
        DELETE FROM indexd.chunk_fields
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(condemned)s)
    ),
    deleted_relevance AS (
        DELETE FROM indexd.relevance
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(condemned)s)
    ),
    deleted_documents AS (
        DELETE FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(condemned)s)
        RETURNING namespace, doc_id, ingested_at, digest, version
    ),
    -- 2. Log the event, and which documents left with it: no text and no vector.
    logged_documents AS (
        INSERT INTO indexd.forgotten_documents (
            namespace, event_id, doc_id, ingested_at, digest, version
        )
        SELECT namespace, %(event_id)s, doc_id, ingested_at, digest, version
          FROM deleted_documents
    ),
    logged_event AS (
        INSERT INTO indexd.forget_events (
            namespace, event_id, at, kind, reason, filter, strategy, forgotten_count, actor
        )
        SELECT %(namespace)s, %(event_id)s, %(at)s, %(kind)s, %(reason)s, %(filter)s,
               %(strategy)s, count(*), %(actor)s
          FROM deleted_documents
    )
    -- 3. Lower the namespace's counters by what was deleted, not by what was asked for.
    UPDATE indexd.namespaces
       SET documents      = documents      - (SELECT count(*) FROM deleted_documents),
           chunks         = chunks         - (SELECT count(*) FROM deleted_chunks),
           chunks_removed = chunks_removed + (SELECT count(*) FROM deleted_chunks)
     WHERE namespace = %(namespace)s
    RETURNING (SELECT count(*) FROM deleted_documents) AS deleted
"""


async def remove(
    connection: Connection,
    namespace: str,
    condemned: Sequence[str],
    cause: Cause,
    *,
    event_id: UUID | None = None,
) -> Deletion | None:
    """Delete documents that the caller has locked, log and count them, in one statement.

    None where no document is named. The lock must come from an earlier statement: a statement does
    not see the chunks that a concurrent upsert wrote while the statement itself waited for a lock.
    """
    if not condemned:
        return None
    event_id = event_id or uuid4()
    count = await rows.value(
        connection,
        REMOVE,
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
    return Deletion(namespace, cause.kind, cause.strategy, count or 0, event_id)
