"""Rows without the row they belong to, and wrong counters: found and repaired.

Every write of this program keeps rows and counters consistent. Statements that somebody runs by
hand, such as `DELETE FROM indexd.documents` in psql, do not.
"""

import msgspec

from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.writing.vector_space import shut_out_writers


class Orphans(msgspec.Struct, frozen=True):
    """The number of rows without the row they belong to, by table.

    `fields` are those of chunks that are gone; a program of the release before leaves them.
    `forgotten` are documents of the log without their event. `incomplete` are documents whose
    number of chunks is another than their row says. `miscounted` are the namespaces whose counters
    are wrong.
    """

    chunks: int = 0
    fields: int = 0
    relevance: int = 0
    forgotten: int = 0
    incomplete: int = 0
    miscounted: int = 0

    def __bool__(self) -> bool:
        return any(msgspec.structs.astuple(self))

    def __add__(self, other: "Orphans") -> "Orphans":
        both = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return Orphans(*(one + more for one, more in both))

    def __str__(self) -> str:
        return (
            f"{self.chunks:,} chunks and {self.relevance:,} relevance rows without a document, "
            f"fields of {self.fields:,} chunks that are gone, "
            f"{self.forgotten:,} forgotten documents without an event, "
            f"{self.incomplete:,} documents without all their chunks, "
            f"wrong counts of {self.miscounted:,} namespaces"
        )


def _without_document(table: str) -> str:
    """SQL: a row of this table has no document."""
    return f"""NOT EXISTS (
            SELECT 1
              FROM indexd.documents
             WHERE documents.namespace = {table}.namespace
               AND documents.doc_id = {table}.doc_id
           )"""


_WITHOUT_CHUNK = """NOT EXISTS (
            SELECT 1
              FROM indexd.chunks
             WHERE chunks.namespace = chunk_fields.namespace
               AND chunks.doc_id = chunk_fields.doc_id
               AND chunks.ordinal = chunk_fields.ordinal
           )"""

_WITHOUT_EVENT = """NOT EXISTS (
            SELECT 1
              FROM indexd.forget_events AS event
             WHERE event.namespace = forgotten_documents.namespace
               AND event.event_id = forgotten_documents.event_id
           )"""

_COUNTED = """
        SELECT namespace, sum(documents)::bigint AS documents, sum(chunks)::bigint AS chunks
          FROM (
                SELECT namespace, 1 AS documents, 0 AS chunks FROM indexd.documents
                 UNION ALL
                SELECT namespace, 0, 1 FROM indexd.chunks
               ) AS rows
         GROUP BY namespace"""

_INCOMPLETE = """
        SELECT documents.namespace, documents.doc_id, count(chunks.doc_id)::int AS chunks
          FROM indexd.documents
          LEFT JOIN indexd.chunks USING (namespace, doc_id)
         GROUP BY documents.namespace, documents.doc_id, documents.chunk_count
        HAVING count(chunks.doc_id) <> documents.chunk_count"""

FIND = f"""
    /* indexd:orphans.find */
    WITH counted AS ({_COUNTED}
    ),
    incomplete AS ({_INCOMPLETE}
    )
    SELECT (
            SELECT count(*)
              FROM indexd.chunks
             WHERE {_without_document("chunks")}
           ) AS chunks,
           (
            SELECT count(*)
              FROM indexd.chunk_fields
             WHERE {_WITHOUT_CHUNK}
           ) AS fields,
           (
            SELECT count(*)
              FROM indexd.relevance
             WHERE {_without_document("relevance")}
           ) AS relevance,
           (
            SELECT count(*)
              FROM indexd.forgotten_documents
             WHERE {_WITHOUT_EVENT}
           ) AS forgotten,
           (SELECT count(*) FROM incomplete) AS incomplete,
           (
            SELECT count(*)
              FROM counted
              FULL JOIN indexd.namespaces USING (namespace)
             WHERE (namespaces.documents, namespaces.chunks)
                   IS DISTINCT FROM
                   (coalesce(counted.documents, 0), coalesce(counted.chunks, 0))
           ) AS miscounted
"""


async def find(connection: Connection) -> Orphans:
    """Look for them in one snapshot: a pass over the indexes of all tables."""
    return await rows.first(connection, Orphans, FIND, {}) or Orphans()


NAMESPACES = f"""
    /* indexd:orphans.namespaces */
    SELECT DISTINCT namespace
      FROM (
            SELECT namespace FROM indexd.namespaces
             UNION ALL
            SELECT namespace FROM ({_COUNTED}
                   ) AS counted
             UNION ALL
            SELECT namespace FROM indexd.chunk_fields
             UNION ALL
            SELECT namespace FROM indexd.relevance
             UNION ALL
            SELECT namespace FROM indexd.forgotten_documents
           ) AS named
     ORDER BY namespace
"""


async def mend(connection: Connection) -> Orphans:
    """Delete rows without a document or an event, and set the counters; returns what was mended.

    A document without all its chunks keeps those it has, and is written as a whole the next time
    that it is sent. Atomic per namespace: each is a transaction, which first locks the namespace's
    row against its writers. The connection is in autocommit.
    """
    mended = Orphans()
    for namespace in await rows.column(connection, NAMESPACES, {}):
        async with connection.transaction():
            mended += await _mend(connection, namespace)
    return mended


DELETE_CHUNKS = f"""
    /* indexd:orphans.delete_chunks */
    WITH deleted_fields AS (
        DELETE FROM indexd.chunk_fields
         WHERE namespace = %(namespace)s
           AND {_without_document("chunk_fields")}
    )
    DELETE FROM indexd.chunks
     WHERE namespace = %(namespace)s
       AND {_without_document("chunks")}
"""

DELETE_FIELDS = f"""
    /* indexd:orphans.delete_fields */
    DELETE FROM indexd.chunk_fields
     WHERE namespace = %(namespace)s
       AND {_WITHOUT_CHUNK}
"""

DELETE_RELEVANCE = f"""
    /* indexd:orphans.delete_relevance */
    DELETE FROM indexd.relevance
     WHERE namespace = %(namespace)s
       AND {_without_document("relevance")}
"""

DELETE_FORGOTTEN = f"""
    /* indexd:orphans.delete_forgotten */
    DELETE FROM indexd.forgotten_documents
     WHERE namespace = %(namespace)s
       AND {_WITHOUT_EVENT}
"""

MARK_INCOMPLETE = f"""
    /* indexd:orphans.mark_incomplete */
    UPDATE indexd.documents
       SET chunk_count = incomplete.chunks,
           -- Without a digest it is not taken for unchanged when it is sent again.
           digest      = ''
      FROM ({_INCOMPLETE}
           ) AS incomplete
     WHERE documents.namespace = %(namespace)s
       AND incomplete.namespace = %(namespace)s
       AND incomplete.doc_id = documents.doc_id
"""


async def _mend(connection: Connection, namespace: str) -> Orphans:
    await shut_out_writers(connection, namespace)

    async def count(statement: str) -> int:
        return (await connection.execute(statement, {"namespace": namespace})).rowcount

    fields = await count(DELETE_FIELDS)
    chunks = await count(DELETE_CHUNKS)
    return Orphans(
        chunks,
        fields,
        relevance=await count(DELETE_RELEVANCE),
        forgotten=await count(DELETE_FORGOTTEN),
        incomplete=await count(MARK_INCOMPLETE),
        miscounted=await _count_anew(connection, namespace, removed=chunks),
    )


COUNT_ANEW = """
    /* indexd:orphans.count_anew */
    WITH counted AS MATERIALIZED (
        SELECT (
                SELECT count(*) FROM indexd.documents WHERE namespace = %(namespace)s
               ) AS documents,
               (SELECT count(*) FROM indexd.chunks WHERE namespace = %(namespace)s) AS chunks
    ),
    -- A namespace whose row was deleted gets one, with the dimension of its oldest vector.
    -- It has none where no chunk has a vector.
    created AS (
        INSERT INTO indexd.namespaces (namespace, dimension, documents, chunks, created_at)
        SELECT %(namespace)s, vector_dims(embedding), documents, counted.chunks, ingested_at
          FROM counted
         CROSS JOIN (
                SELECT embedding, ingested_at
                  FROM indexd.chunks
                 WHERE namespace = %(namespace)s
                 ORDER BY embedding IS NULL, ingested_at
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
    SELECT EXISTS (SELECT FROM created) OR EXISTS (SELECT FROM corrected) AS was_wrong
"""


async def _count_anew(connection: Connection, namespace: str, *, removed: int) -> int:
    """1 if the namespace's counters were wrong or its row was missing, otherwise 0."""
    values = {"namespace": namespace, "removed": removed}
    return int(await rows.value(connection, COUNT_ANEW, values))
