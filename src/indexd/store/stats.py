"""What the memory holds: documents, chunks and bytes of each namespace."""

from datetime import datetime

import msgspec

from indexd.db.pool import Connection
from indexd.store import rows


class NamespaceStats(msgspec.Struct, frozen=True):
    """Of one namespace that holds documents; `bytes` are those of its chunks, without indexes."""

    namespace: str
    documents: int
    chunks: int
    expired: int
    dimension: int | None
    oldest: datetime
    newest: datetime
    bytes: int
    words_counted_at: datetime | None


BY_NAMESPACE = """
    /* indexd:stats.by_namespace */
    SELECT namespaces.namespace,
           namespaces.documents,
           namespaces.chunks,
           (
                SELECT count(*)
                  FROM indexd.documents
                 WHERE documents.namespace = namespaces.namespace
                   AND documents.expires_at <= %(at)s
           ) AS expired,
           namespaces.dimension,
           oldest.ingested_at AS oldest,
           newest.ingested_at AS newest,
           coalesce(sample.bytes * namespaces.chunks, 0)::bigint AS bytes,
           namespaces.words_counted_at
      FROM indexd.namespaces
     CROSS JOIN LATERAL (
            SELECT ingested_at
              FROM indexd.chunks
             WHERE chunks.namespace = namespaces.namespace
             ORDER BY ingested_at
             LIMIT 1
           ) AS oldest
     CROSS JOIN LATERAL (
            SELECT ingested_at
              FROM indexd.chunks
             WHERE chunks.namespace = namespaces.namespace
             ORDER BY ingested_at DESC
             LIMIT 1
           ) AS newest
     CROSS JOIN LATERAL (
            SELECT avg(pg_column_size(newest_chunks.*)) AS bytes
              FROM (
                    SELECT *
                      FROM indexd.chunks
                     WHERE chunks.namespace = namespaces.namespace
                     ORDER BY ingested_at DESC
                     LIMIT 100
                   ) AS newest_chunks
           ) AS sample
     WHERE namespaces.documents > 0
     ORDER BY namespaces.namespace
"""


async def by_namespace(connection: Connection, *, at: datetime) -> list[NamespaceStats]:
    """Counts are kept by every write; ages come from an index, sizes from a sample.

    Those that expired at this time are counted in an index that holds only documents that expire.
    """
    return await rows.every(connection, NamespaceStats, BY_NAMESPACE, {"at": at})


class _Count(msgspec.Struct, frozen=True):
    namespace: str
    documents: int


DOCUMENT_COUNTS = """
    /* indexd:stats.document_counts */
    SELECT namespace, documents
      FROM indexd.namespaces
     WHERE documents > 0
"""


async def document_counts(connection: Connection) -> dict[str, int]:
    """Documents per namespace, for those that hold any."""
    found = await rows.every(connection, _Count, DOCUMENT_COUNTS, {})
    return {one.namespace: one.documents for one in found}
