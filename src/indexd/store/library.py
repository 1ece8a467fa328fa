"""Documents as a library: read many by their ids, list, count.

A list is paged by keyset: a page begins after the last document of the page before. So each
document that stays is listed exactly once, whatever is written meanwhile, and the last page costs
what the first one does.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.documents import SourceRef
from indexd.store.filters import Filters, for_documents, parameters
from indexd.store.visible import live

Order = Literal["doc_id", "created_at", "ingested_at"]


class StoredChunk(msgspec.Struct, frozen=True):
    """A chunk as it is stored."""

    id: Annotated[str, Meta(description="Id of the chunk")]
    chunk_id: Annotated[str, Meta(description="The same")]
    text: Annotated[str, Meta(description="Text of the chunk; empty where it has none")]
    meta: Annotated[dict[str, Any], Meta(description="The chunk's meta without the embedding")]
    embedding: Annotated[
        list[float] | None,
        Meta(description="The vector, of length 1; null unless asked for, or if there is none"),
    ]


class StoredDocument(msgspec.Struct, frozen=True):
    """A document as it is stored."""

    doc_id: Annotated[str, Meta(description="Id of the document")]
    namespace: Annotated[str, Meta(description="Namespace of the document")]
    version: Annotated[int, Meta(description="One more at each change; compare it for equality")]
    created_at: Annotated[
        datetime, Meta(description="Time of the first write by the server's clock, UTC")
    ]
    ingested_at: Annotated[datetime, Meta(description="Time that the age counts from, UTC")]
    expires_at: Annotated[
        datetime | None,
        Meta(description="Time from which the document is hidden, UTC; null: never"),
    ]
    half_life_seconds: Annotated[
        float | None,
        Meta(description="The document's own half-life in seconds; null if it has none"),
    ]
    meta: Annotated[dict[str, Any], Meta(description="Meta of the document as a whole")]
    tags: Annotated[
        list[str], Meta(description="`meta.tags` of the document and of all its chunks, sorted")
    ]
    source_ref: Annotated[
        SourceRef | None, Meta(description="Where the document comes from, if known")
    ]
    chunks: Annotated[
        list[StoredChunk] | msgspec.UnsetType,
        Meta(description="The chunks in the order they were sent; missing where not asked for"),
    ] = msgspec.UNSET


class Wanted(msgspec.Struct, frozen=True):
    """What of each document is read, and how many bytes of chunks an answer may hold at most.

    What has expired at the time `at` is not there.
    """

    chunks: bool
    vectors: bool
    max_bytes: int
    at: datetime


class Page(msgspec.Struct, frozen=True):
    """A page of a list: `after` is the key of the last document of the page before."""

    order: Order
    descending: bool
    limit: int
    after: tuple[str, str] | None = None


class Listed(msgspec.Struct, frozen=True):
    """The documents of a page, and where the next one begins; None where this is the last."""

    documents: list[StoredDocument]
    after: tuple[str, str] | None


class Counted(msgspec.Struct, frozen=True):
    """How many documents match, and how many chunks these documents have."""

    documents: Annotated[int, Meta(description="How many documents match")]
    chunks: Annotated[int, Meta(description="How many chunks these documents have in all")]


class _Row(msgspec.Struct, frozen=True):
    doc_id: str
    version: int
    created_at: datetime
    ingested_at: datetime
    expires_at: datetime | None
    half_life_seconds: float | None
    meta: dict[str, Any]
    tags: list[str]
    bytes: int
    origin: str | None
    id: str
    offset: str | None
    trust_level: str | None
    injected_by: str | None

    def document(self, namespace: str, chunks: list[StoredChunk] | None) -> StoredDocument:
        ref = None
        if self.origin is not None:
            ref = SourceRef(self.origin, self.id, self.offset, self.trust_level, self.injected_by)
        own = self.meta.get("tags")
        own = [tag for tag in own if isinstance(tag, str)] if isinstance(own, list) else []
        return StoredDocument(
            doc_id=self.doc_id,
            namespace=namespace,
            version=self.version,
            created_at=self.created_at,
            ingested_at=self.ingested_at,
            expires_at=self.expires_at,
            half_life_seconds=self.half_life_seconds,
            meta=self.meta,
            tags=sorted({*self.tags, *own}),
            source_ref=ref,
            chunks=msgspec.UNSET if chunks is None else chunks,
        )


VECTOR_BYTES = 12
"""Bytes of one number of a vector as JSON text, about."""


def _columns(wanted: Wanted) -> str:
    """SQL: the columns of _Row over `document`; `bytes` estimates the answer's part with chunks."""
    vectors = (
        f" + {VECTOR_BYTES} * coalesce(vector_dims(chunk.embedding), 0)" if wanted.vectors else ""
    )
    size = f"octet_length(chunk.text) + octet_length(chunk.meta::text){vectors} + 64"
    return f"""document.doc_id,
           document.version,
           document.created_at,
           document.ingested_at,
           document.expires_at,
           document.half_life_seconds,
           document.meta,
           document.source_ref_origin      AS origin,
           document.source_ref_id          AS id,
           document.source_ref_offset      AS offset,
           document.source_ref_trust_level AS trust_level,
           document.source_ref_injected_by AS injected_by,
           ARRAY(
                SELECT DISTINCT tag
                  FROM indexd.chunks AS chunk
                 CROSS JOIN unnest(chunk.tags) AS tag
                 WHERE chunk.namespace = %(namespace)s
                   AND chunk.doc_id = document.doc_id
           ) AS tags,
           octet_length(document.meta::text) + 256
           + {_sum_of(size) if wanted.chunks else 0} AS bytes"""


def _sum_of(size: str) -> str:
    return f"""(
                SELECT coalesce(sum({size}), 0)::bigint
                  FROM indexd.chunks AS chunk
                 WHERE chunk.namespace = %(namespace)s
                   AND chunk.doc_id = document.doc_id
           )"""


def by_ids_statement(wanted: Wanted) -> str:
    """SQL: the rows of some documents."""
    return f"""
    /* indexd:library.by_ids */
    SELECT {_columns(wanted)}
      FROM indexd.documents AS document
     WHERE document.namespace = %(namespace)s
       AND document.doc_id = ANY(%(doc_ids)s::text[])
       AND {live("document")}
    """


def chunks_statement(*, vectors: bool) -> str:
    """SQL: the chunks of some documents in their order, NULL as embedding unless asked for."""
    return f"""
    /* indexd:library.chunks */
    SELECT doc_id, chunk_id, text, meta, {"embedding" if vectors else "NULL AS embedding"}
      FROM indexd.chunks
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(doc_ids)s::text[])
     ORDER BY doc_id, ordinal
    """


class _Chunk(msgspec.Struct, frozen=True):
    doc_id: str
    chunk_id: str
    text: str
    meta: dict[str, Any]
    embedding: Any


async def by_ids(
    connection: Connection, namespace: str, doc_ids: Sequence[str], wanted: Wanted
) -> list[StoredDocument] | None:
    """The documents in the order of their ids, each once; those that are not there are left out.

    None where they are more than `max_bytes`.
    """
    values = {"namespace": namespace, "doc_ids": list(doc_ids), "at": wanted.at}
    found = {
        one.doc_id: one
        for one in await rows.every(connection, _Row, by_ids_statement(wanted), values)
    }
    if sum(one.bytes for one in found.values()) > wanted.max_bytes:
        return None
    ordered = [found[doc_id] for doc_id in dict.fromkeys(doc_ids) if doc_id in found]
    return await _documents(connection, namespace, ordered, wanted)


def page_statement(page: Page, filters: Filters, wanted: Wanted) -> str:
    """SQL: the rows of a page."""
    direction, beyond = ("DESC", "<") if page.descending else ("ASC", ">")
    key = "document.doc_id" if page.order == "doc_id" else f"document.{page.order}, document.doc_id"
    after = ""
    if page.after is not None:
        after = (
            f"\n       AND document.doc_id {beyond} %(after_id)s"
            if page.order == "doc_id"
            else f"\n       AND ({key}) {beyond} (%(after)s::timestamptz, %(after_id)s)"
        )
    ordered = ", ".join(f"{part} {direction}" for part in key.split(", "))
    return f"""
    /* indexd:library.page */
    SELECT {_columns(wanted)}
      FROM indexd.documents AS document
     WHERE document.namespace = %(namespace)s
       AND {live("document")}
       AND {for_documents(filters)}{after}
     ORDER BY {ordered}
     LIMIT %(limit)s
    """


async def listed(
    connection: Connection, namespace: str, filters: Filters, page: Page, wanted: Wanted
) -> Listed:
    """A page of the documents that match. It ends early where it would be over `max_bytes`."""
    after, after_id = page.after or (None, None)
    found = await rows.every(
        connection,
        _Row,
        page_statement(page, filters, wanted),
        {
            "namespace": namespace,
            "after": after,
            "after_id": after_id,
            "limit": page.limit + 1,
            "at": wanted.at,
            **parameters(filters),
        },
    )
    fitting = list(_fitting(found[: page.limit], wanted.max_bytes))
    documents = await _documents(connection, namespace, fitting, wanted)
    if len(fitting) == len(found):
        return Listed(documents, None)
    last = documents[-1]
    key = "" if page.order == "doc_id" else getattr(last, page.order).isoformat()
    return Listed(documents, (key, last.doc_id))


def _fitting(found: Sequence[_Row], max_bytes: int) -> Iterator[_Row]:
    """The first of them that are together not over the limit; one at least."""
    total = 0
    for place, one in enumerate(found):
        total += one.bytes
        if place and total > max_bytes:
            return
        yield one


async def _documents(
    connection: Connection, namespace: str, found: Sequence[_Row], wanted: Wanted
) -> list[StoredDocument]:
    if not wanted.chunks:
        return [one.document(namespace, None) for one in found]
    chunks: dict[str, list[StoredChunk]] = {one.doc_id: [] for one in found}
    values = {"namespace": namespace, "doc_ids": list(chunks)}
    for one in await rows.every(
        connection, _Chunk, chunks_statement(vectors=wanted.vectors), values
    ):
        vector = None if one.embedding is None else one.embedding.to_list()
        chunks[one.doc_id].append(
            StoredChunk(one.chunk_id, one.chunk_id, one.text, one.meta, vector)
        )
    return [one.document(namespace, chunks[one.doc_id]) for one in found]


def count_statement(filters: Filters) -> str:
    """SQL: how many documents match, and how many chunks they have."""
    return f"""
    /* indexd:library.count */
    SELECT count(*) AS documents,
           coalesce(sum(document.chunk_count), 0)::bigint AS chunks
      FROM indexd.documents AS document
     WHERE document.namespace = %(namespace)s
       AND {live("document")}
       AND {for_documents(filters)}
    """


async def counted(
    connection: Connection, namespace: str, filters: Filters, *, at: datetime
) -> Counted:
    """How many documents match, without those that have expired."""
    values = {"namespace": namespace, "at": at, **parameters(filters)}
    found = await rows.first(connection, Counted, count_statement(filters), values)
    return found or Counted(0, 0)
