"""What is in the memory."""

from datetime import datetime

import msgspec

from indexd.db.pool import Connection


class NamespaceStats(msgspec.Struct, frozen=True):
    """Of one namespace that holds documents; `bytes` is what its chunks take, without indexes."""

    namespace: str
    documents: int
    chunks: int
    dimension: int
    oldest: datetime
    newest: datetime
    bytes: int


async def by_namespace(connection: Connection) -> list[NamespaceStats]:
    """Counts are kept by every write; ages come from an index, sizes from a sample."""
    cursor = await connection.execute("""
        SELECT namespaces.namespace,
               namespaces.documents,
               namespaces.chunks,
               namespaces.dimension,
               oldest.ingested_at,
               newest.ingested_at,
               coalesce(sample.bytes * namespaces.chunks, 0)::bigint
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
    """)
    return [NamespaceStats(*row) for row in await cursor.fetchall()]


async def document_counts(connection: Connection) -> dict[str, int]:
    """Documents per namespace, for those that hold any."""
    cursor = await connection.execute(
        "SELECT namespace, documents FROM indexd.namespaces WHERE documents > 0"
    )
    return dict(await cursor.fetchall())
