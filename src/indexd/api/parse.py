"""From a request's struct to what the store takes; every check that needs no database."""

import base64
import binascii
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar.datastructures import MultiDict
from msgspec import UNSET
from msgspec.structs import replace

from indexd import vectors
from indexd.api.json_body import A_TIME, unknown
from indexd.api.structs import (
    ChunkIn,
    DocumentsListIn,
    FiltersIn,
    Object,
    QueryIn,
    SearchIn,
    SourceRefIn,
    UpsertIn,
)
from indexd.clock import after, now
from indexd.embedders import Serves
from indexd.errors import (
    InvalidEmbedding,
    InvalidField,
    MissingQuery,
)
from indexd.names import MAX_ID, checked_id, namespace_of
from indexd.store.documents import Chunk, Document, SourceRef, check_siblings
from indexd.store.filters import Filters
from indexd.store.library import Order, Page
from indexd.store.search import Query
from indexd.store.where.tree import parse as parse_where
from indexd.vectors import PENDING_EMBEDDING, Model

DEFAULT_K = 10
LARGEST_VERSION = 2**63 - 1
DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
MAX_DEPTH = 1_000
"""Results that are ranked at most, those among them that `offset` skips."""

_OFFSET = re.compile(r"(line|byte):[0-9]+(-[0-9]+)?|offset:[0-9]+")


def utc(moment: datetime | None, where: str) -> datetime | None:
    """The same moment in UTC, which must lie in the years 0001 to 9999."""
    if moment is None:
        return None
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidField(
            f"{where}: expected a time in the years 0001 to 9999 UTC, such as {A_TIME}"
        ) from error


def half_life(seconds: float | None) -> float | None:
    if seconds is not None and not seconds > 0:
        raise InvalidField("half_life_seconds: expected a positive number or null")
    return seconds


def document_from(request: UpsertIn) -> Document:
    """Check everything that can be checked without the database; raises InvalidRequest."""
    doc_id = checked_id(request.doc_id, "doc_id")
    if not request.chunks:
        raise InvalidField("chunks: expected at least one; to empty a document, delete it")
    chunks = tuple(
        _chunk(doc_id, place, sent, embed=request.embed)
        for place, sent in enumerate(request.chunks)
    )
    check_siblings(chunks)
    return Document(
        namespace=namespace_of(request.namespace),
        doc_id=doc_id,
        chunks=chunks,
        meta=request.meta or {},
        source_ref=_source_ref(request.source_ref) if request.source_ref else None,
        half_life_seconds=half_life(request.half_life_seconds),
        ingested_at=utc(request.ingested_at, "ingested_at"),
        expires_at=utc(request.expires_at, "expires_at"),
        ttl_seconds=_ttl(request),
        model=_model(request.embedding_model),
        on_conflict=request.on_conflict,
        if_version=checked_version(request.if_version),
    )


def _ttl(request: UpsertIn) -> float | None:
    seconds = request.ttl_seconds
    if seconds is None:
        return None
    if request.expires_at is not None:
        raise InvalidField("ttl_seconds: says the same as expires_at, expected one of the two")
    if not seconds > 0 or after(now(), seconds) is None:
        raise InvalidField(
            "ttl_seconds: expected a positive number of seconds that ends before the year 10000"
        )
    return seconds


def checked_version(version: int | None) -> int | None:
    if version is not None and version > LARGEST_VERSION:
        raise InvalidField(f"if_version: expected at most {LARGEST_VERSION}, got {version}")
    return version


def _model(name: str | None) -> Model | None:
    """What a client says its vectors were made by."""
    if name is None:
        return None
    if not 1 <= len(name.strip()) <= MAX_ID:
        raise InvalidField(f"embedding_model: expected 1 to {MAX_ID} characters")
    return Model(name.strip())


def _chunk(doc_id: str, place: int, sent: ChunkIn, *, embed: bool) -> Chunk:
    where = f"chunks[{place}]"
    if None not in (sent.id, sent.chunk_id) and sent.id != sent.chunk_id:
        raise InvalidField(f"{where}: id and chunk_id differ, expected one of them")
    given = sent.id if sent.id is not None else sent.chunk_id
    chunk_id = f"{doc_id}#{place}" if given is None else checked_id(given, f"{where}.id")
    meta = dict(sent.meta or {})
    embedding = meta.pop("embedding", sent.embedding)
    if embedding is UNSET and not (sent.text or "").strip():
        raise InvalidEmbedding(f"chunk {chunk_id!r} has neither an embedding nor a text")
    tags = meta.get("tags")
    if tags is None:
        tags = []
    if not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        raise InvalidField(f"{where}.meta.tags: expected an array of texts")
    return Chunk(
        chunk_id=chunk_id,
        text=sent.text or "",
        meta=meta,
        tags=tuple(tags),
        source_path=_optional_text(meta, "source_path", where),
        embedding=_vector(embedding, chunk_id, embed=embed),
    )


def _vector(embedding: Any, chunk_id: str, *, embed: bool) -> vectors.Embedding | None:
    """What was sent, what the embedder is to make, or None: a text without a vector."""
    if embedding is UNSET:
        return PENDING_EMBEDDING if embed else None
    return vectors.parse(embedding, f"chunk {chunk_id!r}")


def _optional_text(meta: Object, key: str, where: str) -> str | None:
    value = meta.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidField(f"{where}.meta.{key}: expected a text")
    return value


def _source_ref(sent: SourceRefIn) -> SourceRef:
    if not sent.origin.strip() or not sent.id.strip():
        raise InvalidField("source_ref: origin and id must not be empty")
    if sent.offset is not None and not _OFFSET.fullmatch(sent.offset):
        raise InvalidField(
            "source_ref.offset: expected line:42, line:100-120, byte:1337-2048 or offset:123",
            hint="a path belongs in source_ref.id",
        )
    return SourceRef(sent.origin, sent.id, sent.offset, sent.trust_level, sent.injected_by)


def filters_from(sent: FiltersIn | None) -> Filters:
    """Raises InvalidField for an empty list and for an empty tag."""
    if sent is None:
        return Filters()
    if sent.tags is not None and "" in sent.tags:
        raise InvalidField("filters.tags: expected tags that are not empty")
    return Filters(
        tags=_wanted(sent.tags, "tags"),
        source_path=_wanted(sent.source_path, "source_path"),
        doc_id=_wanted(sent.doc_id, "doc_id"),
        source_ref_origin=_wanted(sent.source_ref_origin, "source_ref_origin"),
        ingested_after=utc(sent.ingested_after, "filters.ingested_after"),
        ingested_before=utc(sent.ingested_before, "filters.ingested_before"),
        meta=sent.meta,
        where=None if sent.where is None else parse_where(sent.where),
    )


def _wanted(value: str | list[str] | None, key: str) -> list[str] | None:
    if value == []:
        raise InvalidField(f"filters.{key}: expected at least one value")
    return [value] if isinstance(value, str) else value


def query_from(request: SearchIn, *, max_k: int, embeds: Serves, now: datetime) -> Query:
    """Raises MissingQuery, InvalidEmbedding or InvalidField.

    `embeds` says whether a text alone may become the vector.
    """
    query = QueryIn(request.query) if isinstance(request.query, str) else request.query or QueryIn()
    text = query.text or ""
    vector = _query_vector(request, query)
    if request.mode == "lexical":
        vector = None  # it may be there, but not wrong
    has_text = bool(text.strip())
    if vector is None and not has_text:
        raise MissingQuery("expected an embedding or a query text")
    if request.mode == "hybrid" and not has_text:
        raise MissingQuery("mode hybrid needs a query text beside the embedding")
    if request.mode in ("vector", "hybrid") and vector is None and embeds in ("no", "foreign"):
        why = "is configured" if embeds == "no" else "serves this namespace's vectors"
        raise MissingQuery(
            f"mode {request.mode} needs an embedding, and no embedder {why}",
            hint="send query.meta.embedding, or use mode lexical",
        )
    mode = request.mode
    if mode == "auto":
        mode = "lexical" if vector is None and embeds != "yes" else "vector"
    if mode == "hybrid" and request.min_score is not None:
        raise InvalidField("min_score: a score of mode hybrid is a rank, expected min_similarity")
    offset, asked_at = request.offset or 0, utc(request.at, "at")
    filters = filters_from(one_filter(request.filters, request.filter))
    if asked_at is not None and asked_at < now:
        filters = replace(filters, ingested_until=asked_at)
    return Query(
        namespace=namespace_of(request.namespace),
        at=asked_at or now,
        asked_at=now,
        mode=mode,
        k=_depth(min(request.k or DEFAULT_K, max_k), offset),
        offset=offset,
        filters=filters,
        text=text,
        vector=vector,
        model=_model(request.embedding_model),
        per_document=request.per_document,
        min_similarity=_finite(request.min_similarity, "min_similarity"),
        min_score=_finite(request.min_score, "min_score"),
        include_vectors=request.include_vectors,
        is_auto=request.mode == "auto",
    )


def _depth(k: int, offset: int) -> int:
    """How many results are ranked, those among them that are skipped."""
    if offset + k > MAX_DEPTH:
        raise InvalidField(f"offset: expected at most {MAX_DEPTH} with k, got {offset} + {k}")
    return offset + k


def _finite(value: float | None, where: str) -> float | None:
    # JSON has no infinity, but 1e999 is read as one.
    if value is not None and not math.isfinite(value):
        raise InvalidField(f"{where}: expected a finite number")
    return value


def one_filter(filters: FiltersIn | None, alias: FiltersIn | None) -> FiltersIn | None:
    if filters is not None and alias is not None:
        raise InvalidField("filter: is the same as filters, expected one of the two")
    return filters if alias is None else alias


def _query_vector(request: SearchIn, query: QueryIn) -> vectors.Embedding | None:
    """The first that is present; one that is present but null is an error, not passed over."""
    for where, value in (
        ("query.meta.embedding", (query.meta or {}).get("embedding", UNSET)),
        ("embedding", request.embedding),
        ("meta.embedding", (request.meta or {}).get("embedding", UNSET)),
    ):
        if value is not UNSET:
            return vectors.parse(value, where)
    return None


def doc_ids_from(sent: Sequence[str]) -> list[str]:
    """Each id once, in their order; raises InvalidField."""
    ids = list(dict.fromkeys(sent))
    if not 1 <= len(sent) <= MAX_LIMIT:
        raise InvalidField(f"doc_ids: expected 1 to {MAX_LIMIT} ids, got {len(sent)}")
    return [checked_id(one, f"doc_ids[{place}]") for place, one in enumerate(ids)]


def page_from(request: DocumentsListIn) -> Page:
    """Raises InvalidField for a cursor that is not one of such a list."""
    page = Page(request.order, request.descending, min(request.limit or DEFAULT_LIMIT, MAX_LIMIT))
    if request.cursor is None:
        return page
    try:
        made = _cursor.decode(base64.urlsafe_b64decode(request.cursor))
        moment = datetime.fromisoformat(made.after[0]) if made.order != "doc_id" else None
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise InvalidField("cursor: expected a next_cursor of this route") from error
    if (made.order, made.descending) != (page.order, page.descending) or (
        moment is not None and moment.tzinfo is None
    ):
        raise InvalidField(
            f"cursor: is of a list by {made.order}"
            f"{', descending' if made.descending else ''}, expected the order to stay the same"
        )
    checked_id(made.after[1], "cursor")
    return replace(page, after=made.after)


def cursor_after(page: Page, after: tuple[str, str] | None) -> str | None:
    """What a client sends to get the next page; None where there is none."""
    if after is None:
        return None
    made = msgspec.json.encode(replace(page, after=after))
    return base64.urlsafe_b64encode(made).decode()


class _Cursor(msgspec.Struct):
    order: Order
    descending: bool
    after: tuple[str, str]


_cursor = msgspec.json.Decoder(_Cursor)


def checked_limit(limit: int) -> int:
    """How many items of a list to answer; raises InvalidField below 1."""
    if limit < 1:
        raise InvalidField(f"limit: expected at least 1, got {limit}")
    return min(limit, MAX_LIMIT)


def require_parameters(sent: MultiDict[Any], known: Sequence[str]) -> None:
    """A parameter that is misspelt, or there twice, may mean anything.

    Raises UnknownField or InvalidField.
    """
    for name in sent:
        if name not in known:
            raise unknown(name, known)
        if len(sent.getall(name)) > 1:
            raise InvalidField(f"{name}: expected once in the query, got it more often")
