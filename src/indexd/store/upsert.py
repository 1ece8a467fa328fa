"""Taking documents in: each whole or not at all, and not again what is there already."""

import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from indexd import vectors
from indexd.db import Connection
from indexd.errors import DimensionMismatch
from indexd.store.documents import Document, SourceRef


class Written(msgspec.Struct, frozen=True):
    """What became of one document; with `refused` nothing did."""

    chunks: int
    unchanged: bool = False
    refused: DimensionMismatch | None = None


class _Stored(msgspec.Struct, frozen=True):
    digest: bytes
    ingested_at: datetime
    chunk_count: int


class _Version(msgspec.Struct, frozen=True):
    """A document with what the write adds to it."""

    document: Document
    digest: bytes
    ingested_at: datetime

    def is_stored_as(self, stored: _Stored | None) -> bool:
        return (
            stored is not None
            and stored.digest == self.digest
            and self.document.ingested_at in (None, stored.ingested_at)
        )


async def upsert(connection: Connection, document: Document, *, at: datetime) -> Written:
    """Replace one document as a whole. Raises DimensionMismatch and changes nothing then."""
    version = _Version(document, document.digest(), document.ingested_at or at)
    if len(document.chunks) <= FEW:
        seen = await _claim(connection, document.namespace, document.dimension, [version])
        if seen == {} and await _insert_whole(connection, version):
            return Written(len(document.chunks))
    [written] = await upsert_many(connection, [document], at=at)
    if written.refused:
        raise written.refused
    return written


async def upsert_many(
    connection: Connection, documents: Sequence[Document], *, at: datetime
) -> list[Written]:
    """Replace documents, each as a whole, in the caller's transaction; answers in their order.

    No two may have the same namespace and doc_id. Those of a wrong dimension are refused, the
    others written. A namespace's counts are updated last, so that writers wait for one another
    only while they commit.
    """
    written: dict[int, Written] = {}
    growth: dict[str, tuple[int, int]] = {}
    versions = [
        (place, _Version(document, document.digest(), document.ingested_at or at))
        for place, document in enumerate(documents)
    ]
    # Every transaction takes its locks in the same order.
    versions.sort(key=lambda item: (item[1].document.namespace, item[1].document.doc_id))
    for namespace, group in itertools.groupby(
        versions, key=lambda item: item[1].document.namespace
    ):
        places, members = zip(*group, strict=True)
        outcomes, growth[namespace] = await _upsert_into(connection, namespace, members, at=at)
        written |= zip(places, outcomes, strict=True)
    for namespace, (documents_more, chunks_more) in growth.items():
        if documents_more or chunks_more:
            await connection.execute(
                """
                UPDATE indexd.namespaces
                   SET documents = documents + %(documents)s,
                       chunks    = chunks    + %(chunks)s
                 WHERE namespace = %(namespace)s
                """,
                {"namespace": namespace, "documents": documents_more, "chunks": chunks_more},
            )
    return [written[place] for place in range(len(documents))]


async def _upsert_into(
    connection: Connection, namespace: str, versions: Sequence[_Version], *, at: datetime
) -> tuple[list[Written], tuple[int, int]]:
    """Write one namespace's documents, sorted by doc_id; also by how much its counts grow."""
    dimension = versions[0].document.dimension
    while True:
        fitting = [version for version in versions if version.document.dimension == dimension]
        seen = await _claim(connection, namespace, dimension, fitting)
        if seen is not None:
            break
        dimension = await _fix_dimension(connection, namespace, dimension, at=at)
    changed = [v for v in fitting if not v.is_stored_as(seen.get(v.document.doc_id))]
    replaced: dict[str, _Stored] = {}
    if changed:
        replaced = await _lock_or_insert(connection, namespace, changed, seen)
        changed = [v for v in changed if not v.is_stored_as(replaced.get(v.document.doc_id))]
    if changed:
        again = [v for v in changed if v.document.doc_id in replaced]
        if again:
            await _make_room(connection, namespace, again)
        await _write_chunks(connection, namespace, changed)
    rewritten = {version.document.doc_id for version in changed}
    outcomes = [
        Written(0, refused=_refusal(version.document, dimension))
        if version.document.dimension != dimension
        else Written(
            len(version.document.chunks), unchanged=version.document.doc_id not in rewritten
        )
        for version in versions
    ]
    documents_more = sum(doc_id not in replaced for doc_id in rewritten)
    chunks_more = sum(
        len(version.document.chunks)
        - (old.chunk_count if (old := replaced.get(version.document.doc_id)) else 0)
        for version in changed
    )
    return outcomes, (documents_more, chunks_more)


def _refusal(document: Document, dimension: int) -> DimensionMismatch:
    return vectors.mismatch(f"chunk {document.chunks[0].chunk_id!r}", dimension, document.dimension)


async def _claim(
    connection: Connection, namespace: str, dimension: int, versions: Sequence[_Version]
) -> dict[str, _Stored] | None:
    """Hold the namespace at this dimension until the end of the transaction, and see what it has.

    None, and nothing held, where there is no such namespace or it has another dimension. Writers
    share the lock; FOR KEY SHARE lets the others' counts through, and only a change of dimension
    shuts them all out.
    """
    cursor = await connection.execute(
        """
        SELECT document.doc_id, document.digest, document.ingested_at, document.chunk_count
          FROM (
                SELECT namespace
                  FROM indexd.namespaces
                 WHERE namespace = %(namespace)s
                   AND dimension = %(dimension)s
                   FOR KEY SHARE
               ) AS held
          LEFT JOIN indexd.documents AS document
            ON document.namespace = %(namespace)s
           AND document.doc_id = ANY(%(doc_ids)s)
        """,
        {
            "namespace": namespace,
            "dimension": dimension,
            "doc_ids": [version.document.doc_id for version in versions],
        },
    )
    rows = await cursor.fetchall()
    if not rows:
        return None
    return {doc_id: _Stored(*rest) for doc_id, *rest in rows if doc_id is not None}


async def _fix_dimension(
    connection: Connection, namespace: str, dimension: int, *, at: datetime
) -> int:
    """The dimension the namespace has; one that is new or empty takes the one asked for."""
    parameters = {"namespace": namespace, "dimension": dimension, "at": at}
    cursor = await connection.execute(
        """
        INSERT INTO indexd.namespaces (namespace, dimension, created_at)
        VALUES (%(namespace)s, %(dimension)s, %(at)s)
        ON CONFLICT (namespace) DO NOTHING
        """,
        parameters,
    )
    if cursor.rowcount:
        return dimension
    cursor = await connection.execute(
        """
        SELECT dimension, documents
          FROM indexd.namespaces
         WHERE namespace = %(namespace)s
        """,
        parameters,
    )
    fixed, documents = await cursor.fetchone() or (dimension, 0)
    if documents:
        return int(fixed)
    # It looks empty. Once no other writer holds it, see again, in a statement of its own.
    await connection.execute(
        "SELECT FROM indexd.namespaces WHERE namespace = %(namespace)s FOR UPDATE", parameters
    )
    await connection.execute(
        """
        UPDATE indexd.namespaces
           SET dimension = %(dimension)s
         WHERE namespace = %(namespace)s
           AND documents = 0
        """,
        parameters,
    )
    return dimension


async def _stored(
    connection: Connection, namespace: str, versions: Sequence[_Version], *, lock: bool
) -> dict[str, _Stored]:
    cursor = await connection.execute(
        f"""
        SELECT doc_id, digest, ingested_at, chunk_count
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(doc_ids)s)
         ORDER BY doc_id
        {"FOR UPDATE" if lock else ""}
        """,
        {"namespace": namespace, "doc_ids": [v.document.doc_id for v in versions]},
    )
    return {doc_id: _Stored(*rest) for doc_id, *rest in await cursor.fetchall()}


async def _lock_or_insert(
    connection: Connection,
    namespace: str,
    versions: Sequence[_Version],
    seen: dict[str, _Stored],
) -> dict[str, _Stored]:
    """Hold the row of every document, a new one where there was none; say what there was."""
    replaced: dict[str, _Stored] = {}
    missing = [version for version in versions if version.document.doc_id not in seen]
    known = [version for version in versions if version.document.doc_id in seen]
    while known or missing:
        if known:
            locked = await _stored(connection, namespace, known, lock=True)
            replaced |= locked
            # Deleted since they were seen.
            missing += [v for v in known if v.document.doc_id not in locked]
        if not missing:
            break
        missing.sort(key=attrgetter("document.doc_id"))
        inserted = await _insert(connection, namespace, missing)
        # Inserted by another writer since they were looked for.
        known = [v for v in missing if v.document.doc_id not in inserted]
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


def _arrays(namespace: str, versions: Sequence[_Version]) -> dict[str, Any]:
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


async def _insert(connection: Connection, namespace: str, versions: Sequence[_Version]) -> set[str]:
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


async def _make_room(connection: Connection, namespace: str, versions: Sequence[_Version]) -> None:
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


async def _insert_whole(connection: Connection, version: _Version) -> bool:
    """A new document with few chunks, and its counts, in one statement; False if it is not new."""
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
        chunks AS (
            INSERT INTO indexd.chunks ({_COLUMN_LIST})
            SELECT sent.*
              FROM (VALUES {values}) AS sent
             WHERE EXISTS (SELECT FROM document)
        )
        UPDATE indexd.namespaces
           SET documents = documents + 1,
               chunks    = chunks    + %s
         WHERE namespace = %s
           AND EXISTS (SELECT FROM document)
        """,
        [
            *(document.namespace, document.doc_id, version.ingested_at),
            *(document.half_life_seconds, len(rows), version.digest),
            *(msgspec.structs.astuple(ref) if ref else [None] * len(SourceRef.__struct_fields__)),
            Jsonb(document.meta),
            *[value for row in rows for value in row],
            *(len(rows), document.namespace),
        ],
    )
    return cursor.rowcount == 1


async def _write_chunks(
    connection: Connection, namespace: str, versions: Sequence[_Version]
) -> None:
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


def _chunk_rows(namespace: str, version: _Version) -> Iterator[tuple[Any, ...]]:
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
