"""Changing documents without their text: their meta and tags, their expiry, their half-life.

Text, vectors and ingested_at stay, and the version rises by one. What changes stands in `documents`
and in `chunk_fields`, so no HNSW index is touched, with one exception: searches read the half-life
in the row of the chunk, beside the vector, and a chunk that gets another one is written anew.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from psycopg.types.json import Jsonb

from indexd.db.pool import Connection
from indexd.errors import Conflict, InvalidField
from indexd.store import rows
from indexd.store.filters import Filters, for_documents, parameters
from indexd.store.forgetting import deletion
from indexd.store.writing import chunk_fields, document_rows, namespace_rows
from indexd.store.writing.document_rows import StoredRow

BATCH = 5_000
"""Documents of one statement, which ends long before the time that a statement may take."""


class DocumentChange(msgspec.Struct, frozen=True):
    """What is set; what is UNSET stays as it is.

    `merged` are keys of the document's meta with their new values, `removed` are keys that go. None
    takes the expiry or the half-life away.
    """

    merged: dict[str, Any]
    removed: list[str]
    expires_at: datetime | UnsetType | None = UNSET
    half_life_seconds: float | UnsetType | None = UNSET

    @property
    def of_meta(self) -> bool:
        return bool(self.merged or self.removed)

    @property
    def of_content(self) -> bool:
        """Whether it is more than the expiry, which is no part of the content."""
        return self.of_meta or self.half_life_seconds is not UNSET


class MetaLimits(msgspec.Struct, frozen=True):
    """What the meta of a document may be at most once it is changed.

    `merged_bytes` is the limit for its bytes times its chunks, `segments` that for the segments of
    its own tags times its chunks.
    """

    meta_bytes: int
    meta_values: int
    merged_bytes: int
    segments: int


class Update(msgspec.Struct, frozen=True):
    """Which documents get which change: those with these ids, or where `doc_ids` is None those
    that pass the filters. With `if_version` the one document must be stored in this version.
    """

    doc_ids: list[str] | None
    filters: Filters
    change: DocumentChange
    limits: MetaLimits
    if_version: int | None = None


class Updated(msgspec.Struct, frozen=True):
    """How many documents changed, and the ids that are not stored, in the order sent."""

    count: int
    missing: list[str]


async def update(
    connection: Connection, namespace: str, asked: Update, *, at: datetime, dry_run: bool = False
) -> Updated:
    """DocumentChange documents, in the caller's transaction; a dry run changes and locks nothing.

    Atomic. A document that expired is not there. Locks, as every writer takes them: the namespace's
    row, where the half-life changes and the policy has max_items; the documents' rows by doc_id;
    where chunks are written anew, last the namespace's row, for its counters.

    Raises Conflict where `if_version` does not hold and InvalidField where a document would be over
    the limits; the caller's transaction must end with it.
    """
    if asked.change.half_life_seconds is not UNSET and not dry_run:
        await deletion.hold(connection, namespace)
    found = await _find(connection, namespace, asked, at=at, lock=not dry_run)
    if asked.if_version is not None:
        await _check_version(connection, namespace, asked, found)
    chosen = [one.doc_id for one in found]
    for batch in _batches(chosen):
        await _check_size(connection, namespace, batch, asked)
        if not dry_run:
            await _change(connection, namespace, batch, asked.change)
    stored = set(chosen)
    missing = [one for one in asked.doc_ids or () if one not in stored]
    return Updated(len(chosen), missing)


def find_statement(filters: Filters, *, lock: bool) -> str:
    """SQL: the documents that pass, in the order of their ids."""
    locked = "\n       FOR UPDATE" if lock else ""
    return f"""
    /* indexd:writing.update.{"lock" if lock else "find"} */
    SELECT doc_id, digest, ingested_at, chunk_count, version
      FROM indexd.documents AS document
     WHERE document.namespace = %(namespace)s
       AND {for_documents(filters)}
     ORDER BY doc_id{locked}
    """


async def _find(
    connection: Connection, namespace: str, asked: Update, *, at: datetime, lock: bool
) -> list[StoredRow]:
    """The documents to change. Where they are locked, they pass the filters under the lock."""
    filters = replace(asked.filters, unexpired_at=at)
    if asked.doc_ids is not None:
        filters = Filters(doc_id=asked.doc_ids, unexpired_at=at)
    values = {"namespace": namespace, **parameters(filters)}
    found = await rows.every(connection, StoredRow, find_statement(filters, lock=lock), values)
    if not lock or not found or asked.doc_ids is not None:
        return found
    # A writer may have changed what the filters read of chunks while this waited for the document's
    # lock. Only a later statement sees it.
    still = await rows.every(connection, StoredRow, find_statement(filters, lock=False), values)
    locked = {one.doc_id for one in found}
    return [one for one in still if one.doc_id in locked]


async def _check_version(
    connection: Connection, namespace: str, asked: Update, found: Sequence[StoredRow]
) -> None:
    """Raises Conflict unless the one document is stored in the expected version."""
    version = found[0].version if found else 0
    twice = await document_rows.returned(connection, namespace, found) if found else set()
    if version != asked.if_version or twice:
        stored = f"is stored in version {version}" if version else "is not stored"
        doc_id = next(iter(asked.doc_ids or ()), "")
        raise Conflict(
            f"document {doc_id!r} {stored}, expected version {asked.if_version}",
            details={"version": version},
        )


def _batches(chosen: Sequence[str]) -> Iterator[list[str]]:
    for first in range(0, len(chosen), BATCH):
        yield list(chosen[first : first + BATCH])


_NEW_META = "(document.meta - %(removed)s::text[]) || %(merged)s::jsonb"

TOO_LARGE = f"""
    /* indexd:writing.update.too_large */
    SELECT doc_id, chunk_count, bytes, "values", segments
      FROM (
            SELECT document.doc_id,
                   document.chunk_count,
                   octet_length(changed.meta::text) AS bytes,
                   -- A value is two bytes at least, and few are worth counting.
                   CASE
                       WHEN octet_length(changed.meta::text) < 2 * %(meta_values)s THEN 0
                       ELSE (
                            SELECT count(*) - 1
                              FROM jsonb_path_query(changed.meta, 'strict $.**')
                       )
                   END AS "values",
                   (
                    SELECT coalesce(
                               sum(1 + length(tag) - length(replace(tag, '/', ''))), 0
                           )::bigint
                      FROM unnest(indexd.tags_of(changed.meta)) AS tag
                   ) AS segments
              FROM indexd.documents AS document
             CROSS JOIN LATERAL (SELECT {_NEW_META} AS meta) AS changed
             WHERE document.namespace = %(namespace)s
               AND document.doc_id = ANY(%(chosen)s)
           ) AS document
     WHERE bytes > %(meta_bytes)s
        OR "values" > %(meta_values)s
        OR bytes::bigint * chunk_count > %(merged_bytes)s
        OR segments * chunk_count > %(segments)s
     ORDER BY doc_id
     LIMIT 1
"""


class _TooLarge(msgspec.Struct, frozen=True):
    doc_id: str
    chunk_count: int
    bytes: int
    values: int
    segments: int


async def _check_size(
    connection: Connection, namespace: str, chosen: Sequence[str], asked: Update
) -> None:
    """Raises InvalidField if the meta of a document would be larger than an upsert may send."""
    if not asked.change.of_meta:
        return
    limits = asked.limits
    values = {
        **_values(namespace, chosen, asked.change),
        **msgspec.structs.asdict(limits),
    }
    found = await rows.first(connection, _TooLarge, TOO_LARGE, values)
    if found is None:
        return
    if found.segments * found.chunk_count > limits.segments:
        most, got = f"{limits.segments // found.chunk_count} segments of tags", found.segments
    elif found.values > limits.meta_values:
        most, got = f"{limits.meta_values} values at all depths", found.values
    else:
        allowed = min(limits.meta_bytes, limits.merged_bytes // found.chunk_count)
        most, got = f"{allowed} bytes of JSON", found.bytes
    raise InvalidField(
        f"set: document {found.doc_id!r} of {found.chunk_count} chunks would have a meta of {got}, "
        f"expected at most {most}"
    )


def change_statement(change: DocumentChange) -> str:
    """SQL: change the rows of documents; one whose content changes gets another digest.

    The digest is of no content, so what is sent later is a change, also the original.
    """
    given = ["version = document.version + 1"]
    if change.of_meta:
        given.append(f"meta = {_NEW_META}")
    if change.half_life_seconds is not UNSET:
        given.append("half_life_seconds = %(half_life_seconds)s::float8")
    if change.expires_at is not UNSET:
        given.append("expires_at = %(expires_at)s::timestamptz")
    if change.of_content:
        given.append("digest = sha256(document.digest || int8send(document.version + 1))")
    columns = ",\n           ".join(given)
    return f"""
    /* indexd:writing.update.change */
    UPDATE indexd.documents AS document
       SET {columns}
     WHERE document.namespace = %(namespace)s
       AND document.doc_id = ANY(%(chosen)s)
    """


CHANGE_CHUNKS = """
    /* indexd:writing.update.change_chunks */
    UPDATE indexd.chunks
       SET half_life_seconds = %(half_life_seconds)s::float8
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(chosen)s)
       AND half_life_seconds IS DISTINCT FROM %(half_life_seconds)s::float8
"""


async def _change(
    connection: Connection, namespace: str, chosen: Sequence[str], change: DocumentChange
) -> None:
    """DocumentChange documents that are locked."""
    values = _values(namespace, chosen, change)
    await connection.execute(change_statement(change), values)
    if change.of_content:
        await chunk_fields.rewrite(connection, namespace, chosen)
    if change.half_life_seconds is not UNSET:
        anew = await connection.execute(CHANGE_CHUNKS, values)
        # An HNSW index keeps the old rows in its graph, as those of chunks that were replaced.
        await namespace_rows.add_counts(
            connection, namespace, documents=0, chunks=0, removed=anew.rowcount
        )


def _values(namespace: str, chosen: Sequence[str], change: DocumentChange) -> dict[str, Any]:
    return {
        "namespace": namespace,
        "chosen": list(chosen),
        "merged": Jsonb(change.merged),
        "removed": change.removed,
        "half_life_seconds": change.half_life_seconds or None,
        "expires_at": change.expires_at or None,
    }
