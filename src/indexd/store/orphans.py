"""What foreign hands leave behind: rows without the row they belong to, and counts that are wrong.

Every write of this program keeps them together; `DELETE FROM indexd.documents` in psql does not.
"""

from typing import Any

import msgspec

from indexd.db.pool import Connection
from indexd.store.writing.vector_space import shut_out_writers


class Orphans(msgspec.Struct, frozen=True):
    """How many rows are without the row they belong to, by table.

    `forgotten` are documents of the log without their event. `incomplete` are documents that have
    other chunks than they say. `miscounted` are the namespaces whose counts are wrong.
    """

    chunks: int = 0
    relevance: int = 0
    forgotten: int = 0
    incomplete: int = 0
    miscounted: int = 0

    def __bool__(self) -> bool:
        return any(msgspec.structs.astuple(self))

    def __str__(self) -> str:
        return (
            f"{self.chunks:,} chunks and {self.relevance:,} relevance rows without a document, "
            f"{self.forgotten:,} forgotten documents without an event, "
            f"{self.incomplete:,} documents without all their chunks, "
            f"wrong counts of {self.miscounted:,} namespaces"
        )


_NO_DOCUMENT = """
    NOT EXISTS (
        SELECT 1
          FROM indexd.documents
         WHERE documents.namespace = {table}.namespace
           AND documents.doc_id = {table}.doc_id
    )
"""

_NO_EVENT = """
    NOT EXISTS (
        SELECT 1
          FROM indexd.forget_events AS event
         WHERE event.namespace = forgotten_documents.namespace
           AND event.event_id = forgotten_documents.event_id
    )
"""

_COUNTED = """
    SELECT namespace, sum(documents)::bigint AS documents, sum(chunks)::bigint AS chunks
      FROM (
            SELECT namespace, 1 AS documents, 0 AS chunks FROM indexd.documents
             UNION ALL
            SELECT namespace, 0, 1 FROM indexd.chunks
           ) AS rows
     GROUP BY namespace
"""

_INCOMPLETE = """
    SELECT documents.namespace, documents.doc_id, count(chunks.doc_id)::int AS chunks
      FROM indexd.documents
      LEFT JOIN indexd.chunks USING (namespace, doc_id)
     GROUP BY documents.namespace, documents.doc_id, documents.chunk_count
    HAVING count(chunks.doc_id) <> documents.chunk_count
"""


async def find(connection: Connection) -> Orphans:
    """Look for them in one snapshot: a pass over the indexes of all tables."""
    cursor = await connection.execute(f"""
        SELECT (SELECT count(*) FROM indexd.chunks WHERE {_NO_DOCUMENT.format(table="chunks")}),
               (
                SELECT count(*)
                  FROM indexd.relevance
                 WHERE {_NO_DOCUMENT.format(table="relevance")}
               ),
               (SELECT count(*) FROM indexd.forgotten_documents WHERE {_NO_EVENT}),
               (SELECT count(*) FROM ({_INCOMPLETE}) AS incomplete),
               (
                SELECT count(*)
                  FROM ({_COUNTED}) AS counted
                  FULL JOIN indexd.namespaces USING (namespace)
                 WHERE (namespaces.documents, namespaces.chunks)
                       IS DISTINCT FROM
                       (coalesce(counted.documents, 0), coalesce(counted.chunks, 0))
               )
    """)
    return Orphans(*(await cursor.fetchone() or ()))


async def mend(connection: Connection) -> Orphans:
    """Delete rows without a document or an event, and count anew: what was mended.

    A document without all its chunks keeps those it has, and is written whole the next time that it
    is sent. One transaction per namespace, which shuts out its writers. The connection is in
    autocommit.
    """
    cursor = await connection.execute(f"""
        SELECT DISTINCT namespace
          FROM (
                SELECT namespace FROM indexd.namespaces
                 UNION ALL
                SELECT namespace FROM ({_COUNTED}) AS counted
                 UNION ALL
                SELECT namespace FROM indexd.relevance
                 UNION ALL
                SELECT namespace FROM indexd.forgotten_documents
               ) AS named
         ORDER BY namespace
    """)
    mended = Orphans()
    for (namespace,) in await cursor.fetchall():
        async with connection.transaction():
            found = msgspec.structs.astuple(await _mend(connection, namespace))
        both = zip(msgspec.structs.astuple(mended), found, strict=True)
        mended = Orphans(*(one + other for one, other in both))
    return mended


async def _mend(connection: Connection, namespace: str) -> Orphans:
    values = {"namespace": namespace}
    await shut_out_writers(connection, namespace)

    async def count(statement: str) -> int:
        return (await connection.execute(statement, values)).rowcount

    chunks = await count(f"""
        DELETE FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND {_NO_DOCUMENT.format(table="chunks")}
    """)
    relevance = await count(f"""
        DELETE FROM indexd.relevance
         WHERE namespace = %(namespace)s
           AND {_NO_DOCUMENT.format(table="relevance")}
    """)
    forgotten = await count(f"""
        DELETE FROM indexd.forgotten_documents
         WHERE namespace = %(namespace)s
           AND {_NO_EVENT}
    """)
    # Without a digest it is not taken for unchanged when it is sent again.
    incomplete = await count(f"""
        UPDATE indexd.documents
           SET chunk_count = incomplete.chunks,
               digest      = ''
          FROM ({_INCOMPLETE}) AS incomplete
         WHERE documents.namespace = %(namespace)s
           AND incomplete.namespace = %(namespace)s
           AND incomplete.doc_id = documents.doc_id
    """)
    return Orphans(
        chunks, relevance, forgotten, incomplete, await _count_anew(connection, values, chunks)
    )


async def _count_anew(connection: Connection, values: dict[str, Any], removed: int) -> int:
    """Whether the namespace's counts were wrong, or its row was missing: 1 or 0."""
    cursor = await connection.execute(
        """
        WITH counted AS MATERIALIZED (
            SELECT (
                    SELECT count(*) FROM indexd.documents WHERE namespace = %(namespace)s
                   ) AS documents,
                   (SELECT count(*) FROM indexd.chunks WHERE namespace = %(namespace)s) AS chunks
        ),
        made AS (
            INSERT INTO indexd.namespaces (namespace, dimension, documents, chunks, created_at)
            SELECT %(namespace)s, vector_dims(embedding), documents, counted.chunks, ingested_at
              FROM counted
             CROSS JOIN (
                    SELECT embedding, ingested_at
                      FROM indexd.chunks
                     WHERE namespace = %(namespace)s
                     ORDER BY ingested_at
                     LIMIT 1
                   ) AS oldest
            ON CONFLICT (namespace) DO NOTHING
            RETURNING 1
        ),
        corrected AS (
            UPDATE indexd.namespaces
               SET documents      = counted.documents,
                   chunks         = counted.chunks,
                   chunks_removed = chunks_removed + %(removed)s
              FROM counted
             WHERE namespace = %(namespace)s
               AND (
                    namespaces.documents <> counted.documents
                    OR namespaces.chunks <> counted.chunks
                   )
            RETURNING 1
        )
        SELECT (SELECT count(*) FROM made) + (SELECT count(*) FROM corrected)
        """,
        values | {"removed": removed},
    )
    return (await cursor.fetchone() or (0,))[0] and 1
