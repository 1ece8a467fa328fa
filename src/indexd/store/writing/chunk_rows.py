"""The rows of chunks: written after those of their documents, and cleared where orphaned."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.documents import SourceRef
from indexd.store.writing import chunk_fields
from indexd.store.writing.document_rows import INSERT_INTO, DocumentRow, first_version, is_new

CHUNK_COLUMNS = {
    "namespace": "text",
    "doc_id": "text",
    "ordinal": "int4",
    "ingested_at": "timestamptz",
    "half_life_seconds": "float8",
    "embedding": "vector",
    "chunk_id": "text",
    "source_ref_origin": "text",
    "source_path": "text",
    "tags": "text[]",
    "meta": "jsonb",
    "text": "text",
    "generation": "int4",
}
"""The columns of a chunk that are written, and their types; PostgreSQL generates the others."""

_COLUMN_LIST = ",\n            ".join(CHUNK_COLUMNS)

SMALL = 16
"""Chunks: this many are sent as values in one round trip; COPY is faster for more."""


def is_small(row: DocumentRow) -> bool:
    """Whether its chunks go as values in one statement."""
    return len(row.document.chunks) <= SMALL


def _chunk_rows(namespace: str, row: DocumentRow, generation: int) -> Iterator[tuple[Any, ...]]:
    """The chunks of a document, each in the order of CHUNK_COLUMNS."""
    document = row.document
    origin = document.source_ref.origin if document.source_ref else None
    for ordinal, chunk in enumerate(document.chunks):
        yield (
            namespace,
            document.doc_id,
            ordinal,
            row.ingested_at,
            document.half_life_seconds,
            chunk.embedding,
            chunk.chunk_id,
            origin,
            chunk.source_path,
            list(chunk.tags),
            Jsonb(chunk.meta),
            chunk.text,
            generation,
        )


def _values(chunks: int, columns: Iterable[str]) -> str:
    """SQL: this many rows of values; the n-th has the names of the columns with _n."""

    def one(n: int) -> str:
        names = [f"%({name}_{n})s::{CHUNK_COLUMNS[name]}" for name in columns]
        values = ",\n                    ".join(names)
        return f"""(
                    {values}
                )"""

    return ", ".join(one(n) for n in range(chunks))


def _named(chunks: Sequence[tuple[Any, ...]], columns: Iterable[str]) -> dict[str, Any]:
    """The values that `_values` names."""
    return {
        f"{name}_{n}": value
        for n, chunk in enumerate(chunks)
        for name, value in zip(CHUNK_COLUMNS, chunk, strict=True)
        if name in columns
    }


_OF_DOCUMENT = (
    "namespace",
    "doc_id",
    "ingested_at",
    "half_life_seconds",
    "source_ref_origin",
    "generation",
)
"""Columns that all chunks of a document have in common."""

_OF_CHUNK = [name for name in CHUNK_COLUMNS if name not in _OF_DOCUMENT]


def insert_whole_statement(chunks: int) -> str:
    """SQL: insert a document with this many chunks, and count it, unless it exists already."""
    return f"""
    /* indexd:writing.upsert.insert_whole */
    WITH document AS (
        {INSERT_INTO}
        SELECT %(namespace)s::text, %(doc_id)s::text, %(ingested_at)s::timestamptz,
               %(half_life_seconds)s::float8, %(chunk_count)s::int, %(digest)s::bytea,
               %(origin)s::text, %(id)s::text, %(offset)s::text, %(trust_level)s::text,
               %(injected_by)s::text, %(meta)s::jsonb, %(created_at)s::timestamptz,
               %(expires_at)s::timestamptz,
               {first_version("%(doc_id)s")}
         WHERE {is_new("%(doc_id)s")}
        ON CONFLICT (namespace, doc_id) DO NOTHING
        RETURNING version
    ),
    -- Rows of a new document that exist already are orphans: somebody deleted its row by hand.
    orphaned_relevance AS (
        DELETE FROM indexd.relevance
         WHERE namespace = %(namespace)s
           AND doc_id = %(doc_id)s
           AND EXISTS (SELECT 1 FROM document)
    ),
    orphaned_chunks AS (
        DELETE FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND doc_id = %(doc_id)s
           AND EXISTS (SELECT 1 FROM document)
        RETURNING doc_id
    ),
    orphaned_fields AS (
        DELETE FROM indexd.chunk_fields
         WHERE namespace = %(namespace)s
           AND doc_id = %(doc_id)s
           AND EXISTS (SELECT 1 FROM document)
        RETURNING doc_id
    ),
    orphans AS MATERIALIZED (
        SELECT (SELECT count(*) FROM orphaned_chunks) AS chunks,
               (SELECT count(*) FROM orphaned_fields) AS fields
    ),
    chunks AS (
        INSERT INTO indexd.chunks (
            {", ".join(_OF_DOCUMENT)},
            {", ".join(_OF_CHUNK)}
        )
        SELECT %(namespace)s::text, %(doc_id)s::text, %(ingested_at)s::timestamptz,
               %(half_life_seconds)s::float8, %(origin)s::text, %(generation)s::int, sent.*
          FROM (
                VALUES {_values(chunks, _OF_CHUNK)}
               ) AS sent
         WHERE EXISTS (SELECT 1 FROM document)
           -- This waits until the orphans, whose keys may be the same, are deleted.
           AND (SELECT chunks + fields FROM orphans) >= 0
        RETURNING namespace, doc_id, ordinal, ingested_at, half_life_seconds, source_ref_origin,
                  source_path, tags, meta, text
    ),
    fields AS (
        {chunk_fields.INSERT_INTO}
        SELECT {chunk_fields.OF_CHUNK}
          FROM chunks AS chunk
         CROSS JOIN (SELECT %(meta)s::jsonb AS meta) AS document
         {chunk_fields.WEIGHED}
    )
    UPDATE indexd.namespaces
       -- A document whose row was deleted by hand is counted still.
       SET documents      = documents + CASE WHEN orphans.chunks > 0 THEN 0 ELSE 1 END,
           chunks         = namespaces.chunks + %(chunk_count)s - orphans.chunks,
           chunks_removed = chunks_removed + orphans.chunks
      FROM orphans
     WHERE namespace = %(namespace)s
       AND EXISTS (SELECT 1 FROM document)
    RETURNING (SELECT version FROM document) AS version
    """


async def insert_whole(connection: Connection, row: DocumentRow, generation: int) -> int | None:
    """Insert a document with few chunks and count it, in one statement; returns its version.

    None, and nothing is changed, where it exists already.
    """
    document = row.document
    chunks = list(_chunk_rows(document.namespace, row, generation))
    ref = msgspec.structs.asdict(document.source_ref) if document.source_ref else {}
    version: int | None = await rows.value(
        connection,
        insert_whole_statement(len(chunks)),
        {
            "namespace": document.namespace,
            "doc_id": document.doc_id,
            "ingested_at": row.ingested_at,
            "half_life_seconds": document.half_life_seconds,
            "chunk_count": len(chunks),
            "digest": row.digest,
            **{name: ref.get(name) for name in SourceRef.__struct_fields__},
            "meta": Jsonb(document.meta),
            "created_at": row.written_at,
            "expires_at": row.expires_at,
            "generation": generation,
            "average": None,
            **_named(chunks, _OF_CHUNK),
        },
    )
    return version


def insert_chunks_statement(chunks: int) -> str:
    """SQL: insert this many chunks."""
    return f"""
    /* indexd:writing.upsert.insert_chunks */
    INSERT INTO indexd.chunks (
            {_COLUMN_LIST}
    )
    VALUES {_values(chunks, CHUNK_COLUMNS)}
    """


COPY_CHUNKS = f"""
    /* indexd:writing.upsert.copy_chunks */
    COPY indexd.chunks (
            {_COLUMN_LIST}
    ) FROM STDIN (FORMAT BINARY)
"""


async def write_chunks(
    connection: Connection, namespace: str, documents: Sequence[DocumentRow], generation: int
) -> float | None:
    """Insert the chunks of documents whose rows are written and that have none, and their fields.

    `generation` is the namespace's. Returns the average length of the texts in words, for a
    namespace that has none yet; None of few texts.
    """
    chunks = [chunk for row in documents for chunk in _chunk_rows(namespace, row, generation)]
    if len(chunks) <= SMALL:
        await connection.execute(
            insert_chunks_statement(len(chunks)), _named(chunks, CHUNK_COLUMNS)
        )
    else:
        await _copy(connection, chunks)
    average = chunk_fields.average_length(
        [chunk.text for row in documents for chunk in row.document.chunks]
    )
    await chunk_fields.write(connection, namespace, [row.doc_id for row in documents], average)
    return average


async def _copy(connection: Connection, chunks: Sequence[tuple[Any, ...]]) -> None:
    async with connection.cursor() as cursor, cursor.copy(COPY_CHUNKS) as copy:
        copy.set_types(list(CHUNK_COLUMNS.values()))
        for chunk in chunks:
            await copy.write_row(chunk)


class _Orphans(msgspec.Struct, frozen=True):
    doc_id: str
    chunks: int


CLEAR_ORPHANS = """
    /* indexd:writing.upsert.clear_orphans */
    WITH orphaned_relevance AS (
        DELETE FROM indexd.relevance
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(doc_ids)s)
    ),
    orphaned_fields AS (
        DELETE FROM indexd.chunk_fields
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(doc_ids)s)
    ),
    orphaned_chunks AS (
        DELETE FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(doc_ids)s)
        RETURNING doc_id
    )
    SELECT doc_id, count(*) AS chunks
      FROM orphaned_chunks
     GROUP BY doc_id
"""


async def clear_orphans(
    connection: Connection, namespace: str, doc_ids: Sequence[str]
) -> dict[str, int]:
    """Delete chunks, fields and relevance of documents that were just inserted.

    They are orphans: somebody deleted the document's row by hand. Returns the number of chunks by
    doc_id, of documents that had some.
    """
    found = await rows.every(
        connection, _Orphans, CLEAR_ORPHANS, {"namespace": namespace, "doc_ids": list(doc_ids)}
    )
    return {one.doc_id: one.chunks for one in found}
