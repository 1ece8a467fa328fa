"""What filters read of chunks, beside them: written with the chunks, and deleted with them."""

from collections.abc import Sequence

from indexd.db.pool import Connection

INSERT_INTO = """INSERT INTO indexd.chunk_fields (
            namespace, doc_id, ordinal, ingested_at, half_life_seconds, source_ref_origin,
            source_path, tags, meta, terms, lex, length
        )"""
"""SQL: the beginning of a statement that inserts fields, with the columns it gives."""

_TAGS = "indexd.merged_tags(chunk.tags, indexd.tags_of(document.meta))"
_META = "document.meta || chunk.meta"

OF_CHUNK = f"""chunk.namespace, chunk.doc_id, chunk.ordinal, chunk.ingested_at,
               chunk.half_life_seconds, chunk.source_ref_origin, chunk.source_path,
               {_TAGS},
               {_META}, weighed.terms, weighed.lex, weighed.length"""
"""SQL: these columns, of a row `chunk`, of its `document`, and of WEIGHED. The only definition of
the fields."""

WEIGHED = """CROSS JOIN LATERAL indexd.weighed(
            chunk.namespace, chunk.text,
            coalesce(
                (SELECT words_average FROM indexd.namespaces WHERE namespace = %(namespace)s),
                %(average)s::float8
            )
         ) AS weighed"""
"""SQL: the words of a row `chunk`, with their weights, of a statement that binds its namespace, and
the average length to begin with."""

WRITE = f"""
    /* indexd:writing.upsert.write_fields */
        {INSERT_INTO}
        SELECT {OF_CHUNK}
          FROM indexd.chunks AS chunk
          JOIN indexd.documents AS document
            ON document.namespace = %(namespace)s
           AND document.doc_id = chunk.doc_id
         {WEIGHED}
         WHERE chunk.namespace = %(namespace)s
           AND chunk.doc_id = ANY(%(doc_ids)s)
"""


async def write(
    connection: Connection, namespace: str, doc_ids: Sequence[str], average: float | None
) -> None:
    """Insert the fields of all chunks of documents that have none.

    Words weigh against the namespace's average length, where it has none yet against `average`.
    """
    values = {"namespace": namespace, "doc_ids": list(doc_ids), "average": average}
    await connection.execute(WRITE, values)


REWRITE = f"""
    /* indexd:writing.update.rewrite_fields */
    UPDATE indexd.chunk_fields AS fields
       SET half_life_seconds = document.half_life_seconds,
           tags              = {_TAGS},
           meta              = {_META}
      FROM indexd.documents AS document
      JOIN indexd.chunks AS chunk
        ON chunk.namespace = %(namespace)s
       AND chunk.doc_id = document.doc_id
     WHERE document.namespace = %(namespace)s
       AND document.doc_id = ANY(%(doc_ids)s)
       AND fields.namespace = %(namespace)s
       AND fields.doc_id = chunk.doc_id
       AND fields.ordinal = chunk.ordinal
"""


async def rewrite(connection: Connection, namespace: str, doc_ids: Sequence[str]) -> None:
    """Bring the fields of documents whose meta or half-life changed up to date."""
    await connection.execute(REWRITE, {"namespace": namespace, "doc_ids": list(doc_ids)})


ENOUGH = 50
"""Texts whose average length says enough of a namespace to begin with."""


def average_length(texts: Sequence[str]) -> float | None:
    """About the average length of some texts in words; None of too few.

    It only has to be near: the index keeper corrects what is off by a tenth.
    """
    if len(texts) < ENOUGH:
        return None
    words = sum(not word.isdigit() for text in texts for word in text.split())
    return max(words / len(texts), 1.0)
