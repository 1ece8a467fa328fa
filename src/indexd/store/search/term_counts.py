"""In how many chunks each term is, and the average length of texts: counted by the index keeper.

No write updates them. What is stored may be a little old: searches then weigh by it, all alike, so
that the ranking between two counts is deterministic.
"""

from datetime import datetime

import msgspec

from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.search.terms import FEW_CHUNKS

STALE = 0.1
"""Share by which a namespace grows or shrinks before its terms are counted anew."""

OFF = 0.1
"""Share by which the average length may be off before impacts are weighed anew."""

ENOUGH = 20
"""Chunks of a namespace from which on its average length is taken."""

BATCH = 1_000
"""Chunks that are weighed anew in one transaction."""


class DueCount(msgspec.Struct, frozen=True):
    """A namespace whose terms are to be counted or weighed anew."""

    namespace: str
    count: bool
    unweighed: bool
    reweighing: bool
    average: float | None


# The average length is looked at whenever the number of chunks has changed by a tenth.
DUE = """
    /* indexd:search.terms_due */
    SELECT *
      FROM (
            SELECT namespace,
                   greatest(
                       abs(chunks - coalesce(words_chunks, 0)), chunks_removed - words_removed
                   ) > %(stale)s * chunks AS count,
                   EXISTS (
                    SELECT 1
                      FROM indexd.chunk_fields
                     WHERE chunk_fields.namespace = namespaces.namespace
                       AND lex IS NULL
                   ) AS unweighed,
                   words_reweighing AS reweighing,
                   words_average    AS average
              FROM indexd.namespaces
             WHERE chunks >= %(enough)s
                OR words_counted_at IS NOT NULL
           ) AS looked_at
     WHERE count OR unweighed OR reweighing
     ORDER BY namespace
"""


async def due(connection: Connection) -> list[DueCount]:
    """The namespaces that have changed enough, or were left in the middle."""
    return await rows.every(connection, DueCount, DUE, {"stale": STALE, "enough": ENOUGH})


async def keep(connection: Connection, namespace: DueCount, *, at: datetime) -> None:
    """Count and weigh the terms of a namespace anew, where that is due."""
    name = namespace.namespace
    if namespace.unweighed:
        await _weigh(connection, name, FILL)
    reweigh = namespace.reweighing
    if namespace.count:
        reweigh = await _correct_average(connection, name) or reweigh
    if reweigh:
        await _weigh(connection, name, REWEIGH)
        await connection.execute(REWEIGHED, {"namespace": name})
    if namespace.count:
        await count(connection, name, at=at)


PATIENCE = "/* indexd:search.terms_patience */ SET LOCAL lock_timeout = '2s'"

SNAPSHOT = "/* indexd:search.terms_snapshot */ SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"

AVERAGE = """
    /* indexd:search.terms_average */
    SELECT greatest(avg(length), 1)::float8
      FROM indexd.chunk_fields
     WHERE namespace = %(namespace)s
       AND length IS NOT NULL
"""

# This waits for the writers that have read the average before, and they hold no lock that this
# transaction waits for twice.
LOCK = """
    /* indexd:search.terms_lock */
    SELECT words_average
      FROM indexd.namespaces
     WHERE namespace = %(namespace)s
       FOR UPDATE
"""

SET_AVERAGE = """
    /* indexd:search.terms_set_average */
    UPDATE indexd.namespaces
       SET words_average    = %(average)s,
           words_reweighing = true
     WHERE namespace = %(namespace)s
"""

REWEIGHED = """
    /* indexd:search.terms_reweighed */
    UPDATE indexd.namespaces
       SET words_reweighing = false
     WHERE namespace = %(namespace)s
"""


async def _correct_average(connection: Connection, namespace: str) -> bool:
    """Take the average length of now, where that of the impacts is off; returns whether it is.

    After this no writer weighs by the old one: each holds the namespace's row until it is done.
    """
    average = await rows.value(connection, AVERAGE, {"namespace": namespace})
    if average is None:
        return False
    async with connection.transaction():
        await connection.execute(PATIENCE)
        known = await rows.value(connection, LOCK, {"namespace": namespace})
        if known is not None and abs(known - average) <= OFF * known:
            return False
        values = {"namespace": namespace, "average": average}
        await connection.execute(SET_AVERAGE, values)
    return True


class _Key(msgspec.Struct, frozen=True):
    doc_id: str
    ordinal: int


LAST_OF_BATCH = """
    /* indexd:search.terms_batch */
    SELECT doc_id, ordinal
      FROM (
            SELECT doc_id, ordinal
              FROM indexd.chunk_fields
             WHERE namespace = %(namespace)s
               AND (doc_id, ordinal) > (%(doc_id)s, %(ordinal)s)
             ORDER BY doc_id, ordinal
             LIMIT %(batch)s
           ) AS batch
     ORDER BY doc_id DESC, ordinal DESC
     LIMIT 1
"""

REWEIGH = """
    /* indexd:search.terms_reweigh */
    UPDATE indexd.chunk_fields AS fields
       SET terms  = weighed.terms,
           lex    = weighed.lex,
           length = weighed.length
      FROM indexd.chunks AS chunk
     CROSS JOIN LATERAL indexd.weighed(
            chunk.namespace, chunk.text,
            (SELECT words_average FROM indexd.namespaces WHERE namespace = %(namespace)s)
           ) AS weighed
     WHERE fields.namespace = %(namespace)s
       AND chunk.namespace = %(namespace)s
       AND chunk.doc_id = fields.doc_id
       AND chunk.ordinal = fields.ordinal
       AND (fields.doc_id, fields.ordinal) > (%(doc_id)s, %(ordinal)s)
       AND (fields.doc_id, fields.ordinal) <= (%(last_doc_id)s, %(last_ordinal)s)
"""

FILL = f"""{REWEIGH.replace("terms_reweigh ", "terms_fill ")}       AND fields.lex IS NULL
"""


async def _weigh(connection: Connection, namespace: str, statement: str) -> None:
    """Weigh the words of a namespace's chunks, in short transactions."""
    after = _Key("", -1)
    while True:
        values = {
            "namespace": namespace,
            "doc_id": after.doc_id,
            "ordinal": after.ordinal,
            "batch": BATCH,
        }
        last = await rows.first(connection, _Key, LAST_OF_BATCH, values)
        if last is None:
            return
        bounds = {"last_doc_id": last.doc_id, "last_ordinal": last.ordinal}
        await connection.execute(statement, values | bounds)
        after = last


class _Chunks(msgspec.Struct, frozen=True):
    chunks: int
    removed: int


CHUNKS = """
    /* indexd:search.terms_chunks */
    SELECT chunks, chunks_removed AS removed
      FROM indexd.namespaces
     WHERE namespace = %(namespace)s
"""

CLEAR = """
    /* indexd:search.terms_clear */
    DELETE FROM indexd.term_counts
     WHERE namespace = %(namespace)s
"""

COUNT = """
    /* indexd:search.terms_count */
    INSERT INTO indexd.term_counts (namespace, term, chunks)
    SELECT %(namespace)s, term, count(*)
      FROM indexd.chunk_fields
     CROSS JOIN LATERAL unnest(terms) AS term
     WHERE namespace = %(namespace)s
     GROUP BY term
"""

COUNTED = """
    /* indexd:search.terms_counted */
    UPDATE indexd.namespaces
       SET words_chunks     = %(chunks)s,
           words_removed    = %(removed)s,
           words_counted_at = CASE WHEN %(chunks)s >= %(few)s THEN %(at)s::timestamptz END
     WHERE namespace = %(namespace)s
"""


async def count(connection: Connection, namespace: str, *, at: datetime) -> None:
    """Count one namespace's terms anew, in one snapshot: one pass over its fields.

    A small namespace gets no counts, for its searches count themselves.
    """
    values = {"namespace": namespace, "at": at, "few": FEW_CHUNKS}
    async with connection.transaction():
        await connection.execute(SNAPSHOT)
        found = await rows.first(connection, _Chunks, CHUNKS, values)
        if found is None:
            return
        await connection.execute(CLEAR, values)
        if found.chunks >= FEW_CHUNKS:
            await connection.execute(COUNT, values)
    # Outside: under REPEATABLE READ this would fail where a writer has counted meanwhile.
    await connection.execute(COUNTED, values | msgspec.structs.asdict(found))
