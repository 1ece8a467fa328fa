"""The rows of documents: seen, locked, replaced, written."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from indexd.db.pool import Connection
from indexd.policy import Policy
from indexd.store import policies
from indexd.store.documents import Document, SourceRef
from indexd.store.writing.vector_space import IS_BOUND, IS_OPEN, Binding


class Stored(msgspec.Struct, frozen=True):
    """What is there of a document."""

    digest: bytes
    ingested_at: datetime
    chunk_count: int


class Version(msgspec.Struct, frozen=True):
    """A document as it is to be stored; `place` is its place among those of one request."""

    place: int
    document: Document
    digest: bytes
    ingested_at: datetime

    @property
    def doc_id(self) -> str:
        return self.document.doc_id

    def is_stored_as(self, stored: Stored | None) -> bool:
        return (
            stored is not None
            and stored.digest == self.digest
            and self.document.ingested_at in (None, stored.ingested_at)
        )


class Space(msgspec.Struct, frozen=True):
    """A namespace that a writer holds; `documents` counts all only where max_items holds."""

    policy: Policy
    documents: int
    seen: dict[str, Stored]


async def claim(
    connection: Connection,
    namespace: str,
    binding: Binding,
    versions: Sequence[Version],
    *,
    at: datetime,
) -> Space | None:
    """Hold the namespace as it is bound until the end of the transaction, and see what it has.

    None, and nothing held, where there is no such namespace, it is bound otherwise, or its writes
    are paused. Writers share the lock; FOR KEY SHARE lets the others' counts through, and only a
    change of the binding shuts them all out. Where documents are counted (max_items), writers come
    one by one.
    """
    cursor = await connection.execute(
        f"""
        WITH policy AS MATERIALIZED (
            {policies.holding()}
        ),
        counted AS (
            SELECT documents
              FROM indexd.namespaces
             WHERE namespace = %(namespace)s
               AND {IS_BOUND}
               AND {IS_OPEN}
               AND EXISTS (SELECT FROM policy WHERE max_items IS NOT NULL)
               FOR NO KEY UPDATE
        ),
        shared AS (
            SELECT documents
              FROM indexd.namespaces
             WHERE namespace = %(namespace)s
               AND {IS_BOUND}
               AND {IS_OPEN}
               AND NOT EXISTS (SELECT FROM policy WHERE max_items IS NOT NULL)
               FOR KEY SHARE
        )
        SELECT policy.*, held.documents,
               document.doc_id, document.digest, document.ingested_at, document.chunk_count
          FROM (SELECT documents FROM counted UNION ALL SELECT documents FROM shared) AS held
          LEFT JOIN policy
            ON true
          LEFT JOIN indexd.documents AS document
            ON document.namespace = %(namespace)s
           AND document.doc_id = ANY(%(doc_ids)s)
        """,
        {
            "namespace": namespace,
            **binding.parameters,
            "doc_ids": [version.doc_id for version in versions],
            "at": at,
        },
    )
    rows = await cursor.fetchall()
    if not rows:
        return None
    policy, documents = policies.policy_from(rows[0][:-5]), rows[0][-5]
    seen = {row[-4]: Stored(*row[-3:]) for row in rows if row[-4] is not None}
    if policy.max_items is not None:
        # While this waited, another writer may have evicted what this statement still saw.
        seen = await stored(connection, namespace, versions, lock=False)
    return Space(policy, documents, seen)


async def stored(
    connection: Connection, namespace: str, versions: Sequence[Version], *, lock: bool
) -> dict[str, Stored]:
    cursor = await connection.execute(
        f"""
        SELECT doc_id, digest, ingested_at, chunk_count
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(doc_ids)s)
         ORDER BY doc_id
        {"FOR UPDATE" if lock else ""}
        """,
        {"namespace": namespace, "doc_ids": [v.doc_id for v in versions]},
    )
    return {doc_id: Stored(*rest) for doc_id, *rest in await cursor.fetchall()}


async def lock_or_insert(
    connection: Connection,
    namespace: str,
    versions: Sequence[Version],
    seen: dict[str, Stored],
) -> dict[str, Stored]:
    """Hold the row of every document, a new one where there was none; say what there was."""
    replaced: dict[str, Stored] = {}
    missing = [version for version in versions if version.doc_id not in seen]
    known = [version for version in versions if version.doc_id in seen]
    while known or missing:
        if known:
            locked = await stored(connection, namespace, known, lock=True)
            replaced |= locked
            # Deleted since they were seen.
            missing += [v for v in known if v.doc_id not in locked]
        if not missing:
            break
        missing.sort(key=attrgetter("doc_id"))
        inserted = await _insert(connection, namespace, missing)
        # Inserted by another writer since they were looked for.
        known = [v for v in missing if v.doc_id not in inserted]
        missing = []
    return replaced


_COLUMNS = """
    SELECT doc_id, ingested_at, half_life_seconds, chunk_count, digest,
           origin, id, "offset", trust_level, injected_by, meta
      FROM unnest(
            %(doc_id)s::text[], %(ingested_at)s::timestamptz[], %(half_life_seconds)s::float8[],
            %(chunk_count)s::int[], %(digest)s::bytea[], %(origin)s::text[], %(id)s::text[],
            %(offset)s::text[], %(trust_level)s::text[], %(injected_by)s::text[],
            %(meta)s::jsonb[]
           ) AS sent (
            doc_id, ingested_at, half_life_seconds, chunk_count, digest,
            origin, id, "offset", trust_level, injected_by, meta
           )
"""


def _arrays(namespace: str, versions: Sequence[Version]) -> dict[str, Any]:
    documents = [version.document for version in versions]
    refs = [msgspec.structs.asdict(d.source_ref) if d.source_ref else {} for d in documents]
    return {
        "namespace": namespace,
        "doc_id": [d.doc_id for d in documents],
        "ingested_at": [version.ingested_at for version in versions],
        "half_life_seconds": [d.half_life_seconds for d in documents],
        "chunk_count": [len(d.chunks) for d in documents],
        "digest": [version.digest for version in versions],
        "meta": [msgspec.json.encode(d.meta).decode() for d in documents],
        **{name: [ref.get(name) for ref in refs] for name in SourceRef.__struct_fields__},
    }


_INSERT = """
    INSERT INTO indexd.documents (
        namespace, doc_id, ingested_at, half_life_seconds, chunk_count, digest,
        source_ref_origin, source_ref_id, source_ref_offset, source_ref_trust_level,
        source_ref_injected_by, meta
    )
"""


async def _insert(connection: Connection, namespace: str, versions: Sequence[Version]) -> set[str]:
    cursor = await connection.execute(
        f"""
        {_INSERT}
        SELECT %(namespace)s, sent.* FROM ({_COLUMNS}) AS sent ORDER BY doc_id
        ON CONFLICT (namespace, doc_id) DO NOTHING
        RETURNING doc_id
        """,
        _arrays(namespace, versions),
    )
    return {doc_id for (doc_id,) in await cursor.fetchall()}


async def clear_orphans(
    connection: Connection, namespace: str, doc_ids: Sequence[str]
) -> dict[str, int]:
    """Delete what is there of documents that were just inserted: how many chunks, by doc_id.

    Such chunks and relevance are orphans: someone deleted the document's row by hand.
    """
    cursor = await connection.execute(
        """
        WITH orphaned_relevance AS (
            DELETE FROM indexd.relevance
             WHERE namespace = %(namespace)s
               AND doc_id = ANY(%(doc_ids)s)
        ),
        orphaned_chunks AS (
            DELETE FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND doc_id = ANY(%(doc_ids)s)
            RETURNING doc_id
        )
        SELECT doc_id, count(*)
          FROM orphaned_chunks
         GROUP BY doc_id
        """,
        {"namespace": namespace, "doc_ids": list(doc_ids)},
    )
    return dict(await cursor.fetchall())


async def make_room(connection: Connection, namespace: str, versions: Sequence[Version]) -> None:
    """Give documents that are there their new content, but for the chunks: none are left."""
    parameters = _arrays(namespace, versions)
    await connection.execute(
        """
        DELETE FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(doc_id)s)
        """,
        parameters,
    )
    # What searches showed of the old content says nothing about the new one.
    await connection.execute(
        """
        DELETE FROM indexd.relevance
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(doc_id)s)
        """,
        parameters,
    )
    await connection.execute(
        f"""
        UPDATE indexd.documents AS document
           SET ingested_at            = sent.ingested_at,
               half_life_seconds      = sent.half_life_seconds,
               chunk_count            = sent.chunk_count,
               digest                 = sent.digest,
               source_ref_origin      = sent.origin,
               source_ref_id          = sent.id,
               source_ref_offset      = sent."offset",
               source_ref_trust_level = sent.trust_level,
               source_ref_injected_by = sent.injected_by,
               meta                   = sent.meta
          FROM ({_COLUMNS}) AS sent
         WHERE document.namespace = %(namespace)s
           AND document.doc_id = sent.doc_id
        """,
        parameters,
    )


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
}
"""What of a chunk is written, and as which type; the others are generated."""

_COLUMN_LIST = ", ".join(CHUNK_COLUMNS)
_VALUES = f"({', '.join(f'%s::{kind}' for kind in CHUNK_COLUMNS.values())})"

FEW = 16
"""So many chunks go as values in one round trip; more are faster copied."""


def is_small(version: Version) -> bool:
    return len(version.document.chunks) <= FEW


async def insert_whole(connection: Connection, version: Version) -> bool:
    """A new document with few chunks, and its counts, in one statement; False if it is not new.

    Chunks and relevance of its id are orphans then: someone deleted the document's row by hand.
    They go first, which the chunks that are inserted wait for, and the counts have the document
    already.
    """
    document = version.document
    ref = document.source_ref
    rows = list(_chunk_rows(document.namespace, version))
    values = ", ".join([_VALUES] * len(rows))
    cursor = await connection.execute(
        f"""
        WITH document AS (
            {_INSERT}
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (namespace, doc_id) DO NOTHING
            RETURNING doc_id
        ),
        orphaned_relevance AS (
            DELETE FROM indexd.relevance
             WHERE namespace = %s
               AND doc_id = %s
               AND EXISTS (SELECT 1 FROM document)
        ),
        orphaned_chunks AS (
            DELETE FROM indexd.chunks
             WHERE namespace = %s
               AND doc_id = %s
               AND EXISTS (SELECT 1 FROM document)
            RETURNING doc_id
        ),
        orphans AS MATERIALIZED (
            SELECT count(*) AS chunks FROM orphaned_chunks
        ),
        chunks AS (
            INSERT INTO indexd.chunks ({_COLUMN_LIST})
            SELECT sent.*
              FROM (VALUES {values}) AS sent
             WHERE EXISTS (SELECT 1 FROM document)
               AND (SELECT chunks FROM orphans) >= 0
        )
        UPDATE indexd.namespaces
           SET documents      = documents + CASE WHEN orphans.chunks > 0 THEN 0 ELSE 1 END,
               chunks         = namespaces.chunks + %s - orphans.chunks,
               chunks_removed = chunks_removed + orphans.chunks
          FROM orphans
         WHERE namespace = %s
           AND EXISTS (SELECT 1 FROM document)
        """,
        [
            *(document.namespace, document.doc_id, version.ingested_at),
            *(document.half_life_seconds, len(rows), version.digest),
            *(msgspec.structs.astuple(ref) if ref else [None] * len(SourceRef.__struct_fields__)),
            Jsonb(document.meta),
            *(document.namespace, document.doc_id) * 2,
            *[value for row in rows for value in row],
            *(len(rows), document.namespace),
        ],
    )
    return cursor.rowcount == 1


async def write_chunks(connection: Connection, namespace: str, versions: Sequence[Version]) -> None:
    rows = [row for version in versions for row in _chunk_rows(namespace, version)]
    if len(rows) <= FEW:
        await connection.execute(
            f"INSERT INTO indexd.chunks ({_COLUMN_LIST}) VALUES {', '.join([_VALUES] * len(rows))}",
            [value for row in rows for value in row],
        )
        return
    async with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY indexd.chunks ({_COLUMN_LIST}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(list(CHUNK_COLUMNS.values()))
        for row in rows:
            await copy.write_row(row)


def _chunk_rows(namespace: str, version: Version) -> Iterator[tuple[Any, ...]]:
    """In the order of CHUNK_COLUMNS."""
    document = version.document
    origin = document.source_ref.origin if document.source_ref else None
    for ordinal, chunk in enumerate(document.chunks):
        yield (
            namespace,
            document.doc_id,
            ordinal,
            version.ingested_at,
            document.half_life_seconds,
            chunk.embedding,
            chunk.chunk_id,
            origin,
            chunk.source_path,
            list(chunk.tags),
            Jsonb(chunk.meta),
            chunk.text,
        )


async def grow(
    connection: Connection, namespace: str, *, documents: int, chunks: int, replaced: int
) -> None:
    """Keep the namespace's counts: what there is more of, and how many chunks were replaced."""
    if not (documents or chunks or replaced):
        return
    await connection.execute(
        """
        UPDATE indexd.namespaces
           SET documents = documents + %(documents)s,
               chunks    = chunks    + %(chunks)s,
               chunks_removed = chunks_removed + %(replaced)s
         WHERE namespace = %(namespace)s
        """,
        {
            "namespace": namespace,
            "documents": documents,
            "chunks": chunks,
            "replaced": replaced,
        },
    )


async def any_older(connection: Connection, namespace: str, limit: datetime) -> bool:
    """Whether the namespace has a document from before the limit."""
    cursor = await connection.execute(
        """
        SELECT EXISTS (
                SELECT
                  FROM indexd.documents
                 WHERE namespace = %(namespace)s
                   AND ingested_at < %(limit)s
               )
        """,
        {"namespace": namespace, "limit": limit},
    )
    return bool((await cursor.fetchone() or (False,))[0])
