"""What filters read of chunks, beside them: written with the chunks, and deleted with them."""

from collections.abc import Sequence

from indexd.db.pool import Connection

INSERT_INTO = """INSERT INTO indexd.chunk_fields (
            namespace, doc_id, ordinal, ingested_at, half_life_seconds, source_ref_origin,
            source_path, tags, meta
        )"""
"""SQL: the beginning of a statement that inserts fields, with the columns it gives."""

OF_CHUNK = """chunk.namespace, chunk.doc_id, chunk.ordinal, chunk.ingested_at,
               chunk.half_life_seconds, chunk.source_ref_origin, chunk.source_path,
               indexd.merged_tags(chunk.tags, indexd.tags_of(document.meta)),
               document.meta || chunk.meta"""
"""SQL: these columns, of a row `chunk` and of its `document`. The only definition of the fields."""

WRITE = f"""
    /* indexd:writing.upsert.write_fields */
        {INSERT_INTO}
        SELECT {OF_CHUNK}
          FROM indexd.chunks AS chunk
          JOIN indexd.documents AS document
            ON document.namespace = %(namespace)s
           AND document.doc_id = chunk.doc_id
         WHERE chunk.namespace = %(namespace)s
           AND chunk.doc_id = ANY(%(doc_ids)s)
"""


async def write(connection: Connection, namespace: str, doc_ids: Sequence[str]) -> None:
    """Insert the fields of all chunks of documents that have none."""
    await connection.execute(WRITE, {"namespace": namespace, "doc_ids": list(doc_ids)})
