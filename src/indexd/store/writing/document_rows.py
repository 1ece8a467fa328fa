"""The rows of documents: looked up, locked, inserted, replaced."""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Literal

import msgspec

from indexd.clock import LAST, after
from indexd.db.pool import Connection
from indexd.errors import Conflict
from indexd.store import rows
from indexd.store.documents import Document, SourceRef


class StoredRow(msgspec.Struct, frozen=True):
    """What the row of a stored document tells about its version."""

    doc_id: str
    digest: bytes
    ingested_at: datetime
    chunk_count: int
    version: int
    expires_at: datetime | None = None

    def has_expired(self, at: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= at


Verdict = Conflict | Literal["write", "renew", "keep", "skip"]


class DocumentRow(msgspec.Struct, frozen=True):
    """A document as it is to be stored; `place` is its place among those of one request."""

    place: int
    document: Document
    digest: bytes
    ingested_at: datetime
    written_at: datetime

    @property
    def doc_id(self) -> str:
        return self.document.doc_id

    @property
    def expires_at(self) -> datetime | None:
        """The time from which it is hidden; None: never."""
        seconds = self.document.ttl_seconds
        if seconds is None:
            return self.document.expires_at
        # A ttl that ended after LAST was refused before; the write may be a little later.
        return after(self.written_at, seconds) or LAST

    @property
    def is_hidden(self) -> bool:
        """Whether it has expired when it is written."""
        return self.expires_at is not None and self.expires_at <= self.written_at

    def verdict(self, stored: StoredRow | None) -> Verdict:
        """What is to be done, where this is what is stored.

        `renew`: the expiry alone would change. `keep`: nothing would. `skip`: the client wants what
        is stored to stay. For every write a document that has expired is not there.
        """
        document = self.document
        if stored is not None and stored.has_expired(self.written_at):
            stored = None
        found = 0 if stored is None else stored.version
        if document.if_version not in (None, found):
            return conflict(document, found)
        if stored is None:
            return "write"
        if document.on_conflict == "fail":
            return conflict(document, found)
        if document.on_conflict == "skip":
            return "skip"
        if not self.is_stored_as(stored):
            return "write"
        return "keep" if stored.expires_at == self.expires_at else "renew"

    @property
    def may_insert(self) -> bool:
        """Whether it may be written where no document is stored."""
        return self.document.if_version in (None, 0)

    def is_stored_as(self, stored: StoredRow | None) -> bool:
        """Whether nothing would change: same content, and no other ingested_at was sent."""
        return (
            stored is not None
            and stored.digest == self.digest
            and self.document.ingested_at in (None, stored.ingested_at)
        )


def conflict(document: Document, version: int) -> Conflict:
    """The error for a document that is stored in this version; 0 means that it is not stored."""
    if document.if_version is not None:
        stored = f"is stored in version {version}" if version else "is not stored"
        wanted = f"expected version {document.if_version}"
    else:
        stored, wanted = f"is stored already, in version {version}", "expected none"
    return Conflict(
        f"document {document.doc_id!r} {stored}, {wanted}", details={"version": version}
    )


LOOK_UP = """
    /* indexd:writing.upsert.look_up */
    SELECT doc_id, digest, ingested_at, chunk_count, version, expires_at
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(doc_ids)s)
     ORDER BY doc_id
"""

LOCK = """
    /* indexd:writing.upsert.lock */
    SELECT doc_id, digest, ingested_at, chunk_count, version, expires_at
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(doc_ids)s)
     ORDER BY doc_id
       FOR UPDATE
"""


async def look_up(
    connection: Connection, namespace: str, doc_ids: Sequence[str]
) -> dict[str, StoredRow]:
    """Those of the documents that exist, by doc_id; nothing is locked."""
    return await _stored(connection, LOOK_UP, namespace, doc_ids)


async def _stored(
    connection: Connection, statement: str, namespace: str, doc_ids: Sequence[str]
) -> dict[str, StoredRow]:
    found = await rows.every(
        connection, StoredRow, statement, {"namespace": namespace, "doc_ids": list(doc_ids)}
    )
    return {one.doc_id: one for one in found}


async def lock_or_insert(
    connection: Connection,
    namespace: str,
    documents: Sequence[DocumentRow],
    seen: dict[str, StoredRow],
) -> tuple[dict[str, StoredRow], dict[str, int]]:
    """Lock the row of every document; one that has none gets a new row, which locks it, too.

    Returns the rows that existed, and the versions of those that are new. Documents that may not be
    inserted are in neither where they are not stored. `seen` are those that an earlier statement
    found: since then another writer may have deleted one, or inserted one that was missing.
    """
    replaced: dict[str, StoredRow] = {}
    versions: dict[str, int] = {}
    missing = [one for one in documents if one.doc_id not in seen]
    known = [one for one in documents if one.doc_id in seen]
    while known or missing:
        if known:
            locked = await _stored(connection, LOCK, namespace, [one.doc_id for one in known])
            replaced |= locked
            missing += [one for one in known if one.doc_id not in locked]
        missing = [one for one in missing if one.may_insert]
        if not missing:
            break
        missing.sort(key=attrgetter("doc_id"))
        inserted = await _insert(connection, namespace, missing)
        versions |= inserted
        known = [one for one in missing if one.doc_id not in inserted]
        missing = []
    return replaced, versions


_SENT = """
        SELECT doc_id, ingested_at, half_life_seconds, chunk_count, digest,
               origin, id, "offset", trust_level, injected_by, meta, created_at, expires_at
          FROM unnest(
                %(doc_id)s::text[], %(ingested_at)s::timestamptz[], %(half_life_seconds)s::float8[],
                %(chunk_count)s::int[], %(digest)s::bytea[], %(origin)s::text[], %(id)s::text[],
                %(offset)s::text[], %(trust_level)s::text[], %(injected_by)s::text[],
                %(meta)s::jsonb[], %(created_at)s::timestamptz[], %(expires_at)s::timestamptz[]
               ) AS sent (
                doc_id, ingested_at, half_life_seconds, chunk_count, digest,
                origin, id, "offset", trust_level, injected_by, meta, created_at, expires_at
               )"""


def _arrays(namespace: str, documents: Sequence[DocumentRow]) -> dict[str, Any]:
    """The values that _SENT names, and the namespace."""
    contents = [one.document for one in documents]
    refs = [msgspec.structs.asdict(d.source_ref) if d.source_ref else {} for d in contents]
    return {
        "namespace": namespace,
        "doc_id": [d.doc_id for d in contents],
        "ingested_at": [one.ingested_at for one in documents],
        "half_life_seconds": [d.half_life_seconds for d in contents],
        "chunk_count": [len(d.chunks) for d in contents],
        "digest": [one.digest for one in documents],
        "meta": [msgspec.json.encode(d.meta).decode() for d in contents],
        "created_at": [one.written_at for one in documents],
        "expires_at": [one.expires_at for one in documents],
        **{name: [ref.get(name) for ref in refs] for name in SourceRef.__struct_fields__},
    }


INSERT_INTO = """INSERT INTO indexd.documents (
            namespace, doc_id, ingested_at, half_life_seconds, chunk_count, digest,
            source_ref_origin, source_ref_id, source_ref_offset, source_ref_trust_level,
            source_ref_injected_by, meta, created_at, expires_at, version
        )"""
"""SQL: the beginning of a statement that inserts documents, with the columns it gives."""


def first_version(doc_id: str) -> str:
    """SQL: the version of a new document, one after the highest that the log knows of it."""
    return f"""1 + coalesce((
                SELECT max(forgotten.version)
                  FROM indexd.forgotten_documents AS forgotten
                 WHERE forgotten.namespace = %(namespace)s
                   AND forgotten.doc_id = {doc_id}
           ), 0)"""


def is_new(doc_id: str) -> str:
    """SQL: the statement's snapshot has no such document.

    One that is deleted while the statement runs is not inserted by it: the log of the snapshot does
    not know of that deletion, and a version would come twice.
    """
    return f"""NOT EXISTS (
            SELECT 1
              FROM indexd.documents AS existing
             WHERE existing.namespace = %(namespace)s
               AND existing.doc_id = {doc_id}
           )"""


INSERT = f"""
    /* indexd:writing.upsert.insert */
    {INSERT_INTO}
    SELECT %(namespace)s, sent.*,
           {first_version("sent.doc_id")}
      FROM ({_SENT}
           ) AS sent
     WHERE {is_new("sent.doc_id")}
     ORDER BY doc_id
    ON CONFLICT (namespace, doc_id) DO NOTHING
    RETURNING doc_id, version
"""


class _Inserted(msgspec.Struct, frozen=True):
    doc_id: str
    version: int


async def _insert(
    connection: Connection, namespace: str, documents: Sequence[DocumentRow]
) -> dict[str, int]:
    """Insert those of the documents that do not exist; returns their versions by doc_id."""
    found = await rows.every(connection, _Inserted, INSERT, _arrays(namespace, documents))
    return {one.doc_id: one.version for one in found}


DELETE_CHUNKS = """
    /* indexd:writing.upsert.delete_chunks */
    WITH deleted_fields AS (
        DELETE FROM indexd.chunk_fields
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(doc_id)s)
    )
    DELETE FROM indexd.chunks
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(doc_id)s)
"""

DELETE_RELEVANCE = """
    /* indexd:writing.upsert.delete_relevance */
    DELETE FROM indexd.relevance
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(doc_id)s)
"""

REPLACE = f"""
    /* indexd:writing.upsert.replace */
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
           meta                   = sent.meta,
           expires_at             = sent.expires_at,
           version                = document.version + 1
      FROM ({_SENT}
           ) AS sent
     WHERE document.namespace = %(namespace)s
       AND document.doc_id = sent.doc_id
"""


async def replace_rows(
    connection: Connection, namespace: str, documents: Sequence[DocumentRow]
) -> None:
    """Update existing document rows, and delete their chunks, fields and relevance.

    The caller has locked the rows and writes the new chunks. Relevance goes because searches found
    the old content, which tells nothing of the new one.
    """
    parameters = _arrays(namespace, documents)
    for statement in (DELETE_CHUNKS, DELETE_RELEVANCE, REPLACE):
        await connection.execute(statement, parameters)


RENEW = """
    /* indexd:writing.upsert.renew */
    UPDATE indexd.documents AS document
       SET expires_at = sent.expires_at,
           version    = document.version + 1
      FROM unnest(%(doc_ids)s::text[], %(expires_at)s::timestamptz[]) AS sent (doc_id, expires_at)
     WHERE document.namespace = %(namespace)s
       AND document.doc_id = sent.doc_id
"""


async def renew(connection: Connection, namespace: str, documents: Sequence[DocumentRow]) -> None:
    """Change the expiry of documents whose rows are locked, and nothing else of them."""
    values = {
        "namespace": namespace,
        "doc_ids": [one.doc_id for one in documents],
        "expires_at": [one.expires_at for one in documents],
    }
    await connection.execute(RENEW, values)


RETURNED = """
    /* indexd:writing.upsert.returned */
    SELECT doc_id
      FROM indexd.forgotten_documents AS forgotten
      JOIN unnest(%(doc_ids)s::text[], %(versions)s::bigint[]) AS stored (doc_id, version)
     USING (doc_id)
     WHERE forgotten.namespace = %(namespace)s
       AND forgotten.version >= stored.version
"""


async def returned(connection: Connection, namespace: str, stored: Sequence[StoredRow]) -> set[str]:
    """Those whose version the log knows of an earlier document with the same id.

    Two documents that one after the other had the same id and the same version can only come from
    three writers within one statement; whoever read the first must not overwrite the second.
    """
    values = {
        "namespace": namespace,
        "doc_ids": [one.doc_id for one in stored],
        "versions": [one.version for one in stored],
    }
    return set(await rows.column(connection, RETURNED, values))


ANY_OLDER = """
    /* indexd:writing.upsert.any_older */
    SELECT EXISTS (
            SELECT
              FROM indexd.documents
             WHERE namespace = %(namespace)s
               AND ingested_at < %(limit)s
           ) AS any_older
"""


async def any_older(connection: Connection, namespace: str, limit: datetime) -> bool:
    """Whether the namespace has a document with an ingested_at before the limit."""
    return bool(await rows.value(connection, ANY_OLDER, {"namespace": namespace, "limit": limit}))
