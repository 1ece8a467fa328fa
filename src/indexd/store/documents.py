"""Taking documents in: each whole or not at all, and not again what is there already."""

import hashlib
import itertools
from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from indexd import vectors
from indexd.db import Connection
from indexd.errors import DimensionMismatch
from indexd.vectors import Embedding


class SourceRef(msgspec.Struct, frozen=True):
    """Where a document came from (seeds: SourceRef)."""

    origin: str
    id: str
    offset: str | None = None
    trust_level: str | None = None
    injected_by: str | None = None


class Chunk(msgspec.Struct, frozen=True):
    """One embedded piece of a document; `meta` is without the embedding."""

    chunk_id: str
    text: str
    meta: dict[str, Any]
    tags: tuple[str, ...]
    source_path: str | None
    embedding: Embedding


class Document(msgspec.Struct, frozen=True):
    """What a client wants stored. All chunks have one dimension, and ids of their own.

    `ingested_at` None is the time of the write.
    """

    namespace: str
    doc_id: str
    chunks: tuple[Chunk, ...]
    meta: dict[str, Any]
    source_ref: SourceRef | None = None
    half_life_seconds: float | None = None
    ingested_at: datetime | None = None

    @property
    def dimension(self) -> int:
        return self.chunks[0].embedding.size

    def digest(self) -> bytes:
        """Of everything but the time: the same content, however spelled, has the same digest."""
        digest = hashlib.sha256(
            msgspec.json.encode(
                (
                    self.meta,
                    self.source_ref,
                    self.half_life_seconds,
                    [(chunk.chunk_id, chunk.text, chunk.meta) for chunk in self.chunks],
                ),
                order="sorted",
            )
        )
        for chunk in self.chunks:
            digest.update(chunk.embedding.tobytes())
        return digest.digest()


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
    while (fixed := await _claim_dimension(connection, namespace, dimension, at=at)) != dimension:
        dimension = fixed
        if not any(version.document.dimension == dimension for version in versions):
            break
    fitting = [version for version in versions if version.document.dimension == dimension]
    seen = await _stored(connection, namespace, fitting, lock=False)
    changed = [v for v in fitting if not v.is_stored_as(seen.get(v.document.doc_id))]
    replaced: dict[str, _Stored] = {}
    if changed:
        replaced = await _lock_or_insert(connection, namespace, changed, seen)
        changed = [v for v in changed if not v.is_stored_as(replaced.get(v.document.doc_id))]
    if changed:
        again = [v for v in changed if v.document.doc_id in replaced]
        if again:
            await _make_room(connection, namespace, again)
        await _copy_chunks(connection, namespace, changed)
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


async def _claim_dimension(
    connection: Connection, namespace: str, dimension: int, *, at: datetime
) -> int:
    """Hold the namespace at this dimension until the end of the transaction, and answer it.

    A namespace that is new or empty takes the one asked for. Where it has another, that is
    answered and nothing held. Writers share the lock; FOR KEY SHARE lets the others' counts
    through, and only a change of dimension shuts them all out.
    """
    parameters = {"namespace": namespace, "dimension": dimension, "at": at}
    while True:
        cursor = await connection.execute(
            """
            SELECT dimension
              FROM indexd.namespaces
             WHERE namespace = %(namespace)s
               AND dimension = %(dimension)s
               FOR KEY SHARE
            """,
            parameters,
        )
        if await cursor.fetchone():
            return dimension
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
        if documents and fixed != dimension:
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


async def _insert(connection: Connection, namespace: str, versions: Sequence[_Version]) -> set[str]:
    cursor = await connection.execute(
        f"""
        INSERT INTO indexd.documents (
            namespace, doc_id, ingested_at, half_life_seconds, chunk_count, digest,
            source_ref_origin, source_ref_id, source_ref_offset, source_ref_trust_level,
            source_ref_injected_by, meta
        )
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


CHUNK_TYPES = (
    *("text", "text", "int4", "timestamptz", "float8", "vector"),
    *("text", "text", "text", "text[]", "jsonb", "text"),
)


async def _copy_chunks(
    connection: Connection, namespace: str, versions: Sequence[_Version]
) -> None:
    async with (
        connection.cursor() as cursor,
        cursor.copy("""
            COPY indexd.chunks (
                namespace, doc_id, ordinal, ingested_at, half_life_seconds, embedding, chunk_id,
                source_ref_origin, source_path, tags, meta, text
            ) FROM STDIN (FORMAT BINARY)
        """) as copy,
    ):
        copy.set_types(CHUNK_TYPES)
        for version in versions:
            document = version.document
            origin = document.source_ref.origin if document.source_ref else None
            for ordinal, chunk in enumerate(document.chunks):
                await copy.write_row(
                    (
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
                )
