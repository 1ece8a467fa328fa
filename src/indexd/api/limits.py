"""How large a request may be beside its body: counts and sizes that are settings."""

from typing import Any

import msgspec

from indexd.api.json_body import check_depth
from indexd.api.structs import (
    DocumentsCountIn,
    DocumentsFacetsIn,
    DocumentsListIn,
    DocumentsUpdateIn,
    FiltersIn,
    ForgetFilterIn,
    SearchIn,
    UpsertIn,
)
from indexd.errors import InvalidField
from indexd.settings import Settings

MAX_VALUES = 1_000_000
"""Values of all metas of a document, at all depths. To check so many takes 0.2 s."""

MAX_SEGMENTS = 500_000
"""Segments of all tags of a document. Each is a filter key, which takes PostgreSQL 4 to 9 µs; those
of the document's own tags are keys of each of its chunks."""

MAX_MERGED_BYTES = 64 * 1024 * 1024
"""Bytes of JSON of a document's own meta, which is stored once more with each of its chunks."""


DocumentsFilteredIn = DocumentsListIn | DocumentsCountIn | DocumentsFacetsIn | DocumentsUpdateIn


def check_document(request: UpsertIn, settings: Settings) -> None:
    """Raises InvalidField for too many chunks, a text, meta or tags that are too large."""
    if len(request.chunks) > settings.max_chunks:
        raise InvalidField(
            f"chunks: expected at most {settings.max_chunks}, got {len(request.chunks)}"
        )
    for place, chunk in enumerate(request.chunks):
        if len(chunk.text or "") > settings.max_text_chars:
            raise InvalidField(
                f"chunks[{place}].text: expected at most {settings.max_text_chars} characters, "
                f"got {len(chunk.text or '')}"
            )
    values = check_meta(request.meta or {}, "meta", settings)
    _check_merged(request)
    segments = check_tags((request.meta or {}).get("tags"), "meta.tags", settings)
    segments *= len(request.chunks)
    for place, chunk in enumerate(request.chunks):
        meta = {key: value for key, value in (chunk.meta or {}).items() if key != "embedding"}
        values += check_meta(meta, f"chunks[{place}].meta", settings)
        check_values(values)
        segments += check_tags(meta.get("tags"), f"chunks[{place}].meta.tags", settings)
    if segments > MAX_SEGMENTS:
        raise InvalidField(
            f"chunks: expected at most {MAX_SEGMENTS} segments of tags in all, got {segments}"
        )


def _check_merged(request: UpsertIn) -> None:
    size = len(msgspec.json.encode(request.meta or {}))
    if size * len(request.chunks) > MAX_MERGED_BYTES:
        most = MAX_MERGED_BYTES // len(request.chunks)
        raise InvalidField(
            f"meta: expected at most {most} bytes of JSON in a document of "
            f"{len(request.chunks)} chunks, got {size}"
        )


def check_meta(meta: dict[str, Any], where: str, settings: Settings) -> int:
    """How many values it holds; raises InvalidField for too many, or too many levels or bytes."""
    values = check_depth(meta, where)
    if values > settings.max_meta_values:
        raise InvalidField(
            f"{where}: expected at most {settings.max_meta_values} values at all depths, "
            f"got {values}"
        )
    if (size := len(msgspec.json.encode(meta))) > settings.max_meta_bytes:
        raise InvalidField(
            f"{where}: expected at most {settings.max_meta_bytes} bytes of JSON, got {size}"
        )
    return values


def check_values(values: int) -> None:
    """Raises InvalidField if all metas of a document together hold too many."""
    if values > MAX_VALUES:
        raise InvalidField(f"chunks: expected at most {MAX_VALUES} values in all metas together")


def meta_has_too_many(raw: bytes, settings: Settings) -> bool:
    """Whether JSON holds more values than a meta may, told from its text; False is not proof."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A value has one text at most, and one key. Each comma outside of texts is before a value.
    if raw.count(b'"') > 4 * settings.max_meta_values:
        return True
    outside = b"".join(raw.split(b'"')[::2])
    return outside.count(b",") >= settings.max_meta_values


def check_tags(tags: object, where: str, settings: Settings) -> int:
    """How many segments they have; what are no tags is for later checks."""
    if not isinstance(tags, list):
        return 0
    if len(tags) > settings.max_tags:
        raise InvalidField(f"{where}: expected at most {settings.max_tags}, got {len(tags)}")
    segments = 0
    for place, tag in enumerate(tags):
        if not isinstance(tag, str):
            continue
        if len(tag) > settings.max_tag_chars:
            raise InvalidField(
                f"{where}[{place}]: expected at most {settings.max_tag_chars} characters, "
                f"got {len(tag)}"
            )
        own = tag.count("/") + 1
        if own > settings.max_tag_segments:
            raise InvalidField(
                f"{where}[{place}]: expected at most {settings.max_tag_segments} segments, "
                f"got {own}"
            )
        segments += own
    return segments


def check_list(request: DocumentsFilteredIn, settings: Settings) -> None:
    """Raises InvalidField for filters of too many values."""
    _check_both(request, settings)


def _check_both(request: SearchIn | DocumentsFilteredIn, settings: Settings) -> None:
    for name, filters in (("filters", request.filters), ("filter", request.filter)):
        if filters is not None:
            check_filters(filters, settings, name)


def check_search(request: SearchIn, settings: Settings) -> None:
    """Raises InvalidField for a query that is too long and for filters of too many values."""
    text = request.query if isinstance(request.query, str) else request.query and request.query.text
    check_text(text or "", settings, "query")
    _check_both(request, settings)


def check_filters(filters: FiltersIn | ForgetFilterIn, settings: Settings, where: str) -> None:
    check_meta(getattr(filters, "meta", None) or {}, f"{where}.meta", settings)
    for name in ("tags", "source_path", "doc_id", "source_ref_origin"):
        values = getattr(filters, name, None)
        if isinstance(values, list) and len(values) > settings.max_filter_values:
            raise InvalidField(
                f"{where}.{name}: expected at most {settings.max_filter_values} values, "
                f"got {len(values)}"
            )


def check_text(text: str, settings: Settings, where: str) -> None:
    if len(text) > settings.max_text_chars:
        raise InvalidField(f"{where}: expected at most {settings.max_text_chars} characters")
