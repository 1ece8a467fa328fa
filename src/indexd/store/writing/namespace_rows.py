"""The row of a namespace, as an upsert needs it: claimed before its documents, counted after."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from indexd.db.pool import Connection
from indexd.policy import Policy
from indexd.store import policies, rows
from indexd.store.policies import PolicyRow
from indexd.store.writing import document_rows
from indexd.store.writing.document_rows import StoredRow
from indexd.store.writing.vector_space import HAS_SPACE, IS_OPEN, VectorSpace


class ClaimedNamespace(msgspec.Struct, frozen=True):
    """A namespace whose row this transaction has locked.

    `documents` is exact only where the policy has max_items; `generation` is that of chunks which
    are written now; `stored` are those of the documents to be written that exist already.
    `any_expired` says whether the namespace has documents that expired.
    """

    policy: Policy
    documents: int
    generation: int
    stored: dict[str, StoredRow]
    any_expired: bool


class _Claimed(PolicyRow, frozen=True):
    documents: int
    generation: int
    any_expired: bool
    doc_id: str | None
    digest: bytes
    ingested_at: datetime
    chunk_count: int
    version: int
    expires_at: datetime | None


CLAIM = f"""
    /* indexd:writing.upsert.claim */
    WITH policy AS MATERIALIZED ({policies.holding()}),
    -- With max_items the number of documents must be exact: this lock excludes other writers.
    alone AS (
        SELECT documents, generation
          FROM indexd.namespaces
         WHERE namespace = %(namespace)s
           AND {HAS_SPACE}
           AND {IS_OPEN}
           AND EXISTS (SELECT FROM policy WHERE max_items IS NOT NULL)
           FOR NO KEY UPDATE
    ),
    -- Without it this lock admits other writers and their counts. It excludes only a change of
    -- the vector space.
    shared AS (
        SELECT documents, generation
          FROM indexd.namespaces
         WHERE namespace = %(namespace)s
           AND {HAS_SPACE}
           AND {IS_OPEN}
           AND NOT EXISTS (SELECT FROM policy WHERE max_items IS NOT NULL)
           FOR KEY SHARE
    )
    SELECT policy.*, claimed.documents, claimed.generation,
           document.doc_id, document.digest, document.ingested_at, document.chunk_count,
           document.version, document.expires_at,
           EXISTS (
                SELECT
                  FROM indexd.documents AS expired
                 WHERE expired.namespace = %(namespace)s
                   AND expired.expires_at <= %(at)s
           ) AS any_expired
      FROM (SELECT * FROM alone UNION ALL SELECT * FROM shared) AS claimed
      LEFT JOIN policy
        ON true
      LEFT JOIN indexd.documents AS document
        ON document.namespace = %(namespace)s
       AND document.doc_id = ANY(%(doc_ids)s)
"""


async def claim(
    connection: Connection,
    namespace: str,
    space: VectorSpace,
    doc_ids: Sequence[str],
    *,
    at: datetime,
) -> ClaimedNamespace | None:
    """Lock the namespace's row until the end of the transaction, and look up these documents.

    None, and nothing is locked, where the namespace does not exist, has another vector space, or
    its writes are paused. Where the policy has max_items the lock excludes other writers, otherwise
    writers share it.
    """
    found = await rows.every(
        connection,
        _Claimed,
        CLAIM,
        {"namespace": namespace, **space.parameters, "doc_ids": list(doc_ids), "at": at},
    )
    for first in found:
        policy, documents, generation = first.policy(), first.documents, first.generation
        any_expired = first.any_expired
        break
    else:
        return None
    if policy.max_items is not None:
        # While this waited for the lock, another writer may have removed what this statement saw.
        stored = await document_rows.look_up(connection, namespace, doc_ids)
    else:
        stored = {
            row.doc_id: StoredRow(
                row.doc_id,
                row.digest,
                row.ingested_at,
                row.chunk_count,
                row.version,
                row.expires_at,
            )
            for row in found
            if row.doc_id is not None
        }
    any_expired = any_expired or any(row.has_expired(at) for row in stored.values())
    return ClaimedNamespace(policy, documents, generation, stored, any_expired)


ADD_COUNTS = """
    /* indexd:writing.upsert.add_counts */
    UPDATE indexd.namespaces
       SET documents      = documents      + %(documents)s,
           chunks         = chunks         + %(chunks)s,
           chunks_removed = chunks_removed + %(removed)s,
           words_average  = coalesce(words_average, %(average)s)
     WHERE namespace = %(namespace)s
"""


async def add_counts(
    connection: Connection,
    namespace: str,
    *,
    documents: int,
    chunks: int,
    removed: int,
    average: float | None = None,
) -> None:
    """Add these differences to the namespace's counters; `removed` chunks were replaced.

    `average` is the length in words that a namespace begins with which has none yet.
    """
    if not (documents or chunks or removed):
        return
    await connection.execute(
        ADD_COUNTS,
        {
            "namespace": namespace,
            "documents": documents,
            "chunks": chunks,
            "removed": removed,
            "average": average,
        },
    )
