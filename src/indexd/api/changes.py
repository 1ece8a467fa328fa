"""From the request of an update or of facets to what the store takes, with all its limits."""

from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from indexd import clock
from indexd.api.limits import (
    MAX_MERGED_BYTES,
    MAX_SEGMENTS,
    check_list,
    check_meta,
    check_tags,
)
from indexd.api.parse import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    checked_version,
    doc_ids_from,
    filters_from,
    half_life,
    one_filter,
    utc,
)
from indexd.api.structs import DocumentsFacetsIn, DocumentsUpdateIn, SetIn
from indexd.errors import InvalidField
from indexd.settings import Settings
from indexd.store.facets import FacetsAsked, Field
from indexd.store.where.tree import field_of
from indexd.store.writing.update import DocumentChange, MetaLimits, Update

MAX_FIELDS = 10
"""Fields of one request for facets."""

WITHOUT_FACETS = ("text", "chunk_id")
"""Fields of `where` that hardly any two chunks share."""


def update_from(request: DocumentsUpdateIn, settings: Settings, *, at: datetime) -> Update:
    """Raises InvalidField."""
    check_list(request, settings)
    filters = one_filter(request.filters, request.filter)
    if (request.doc_ids is None) == (filters is None):
        raise InvalidField("doc_ids: expected either doc_ids or filters, and not both")
    doc_ids = None if request.doc_ids is None else doc_ids_from(request.doc_ids)
    if request.if_version is not None and len(doc_ids or ()) != 1:
        raise InvalidField("if_version: expected exactly one id in doc_ids beside it")
    return Update(
        doc_ids=doc_ids,
        filters=filters_from(filters),
        change=_change(request.set, settings, at=at),
        limits=MetaLimits(
            settings.max_meta_bytes, settings.max_meta_values, MAX_MERGED_BYTES, MAX_SEGMENTS
        ),
        if_version=checked_version(request.if_version),
    )


def _change(sent: SetIn, settings: Settings, *, at: datetime) -> DocumentChange:
    meta = dict(sent.meta) if isinstance(sent.meta, dict) else {}
    if sent.tags is not UNSET:
        if "tags" in meta:
            raise InvalidField("set: tags is the same as meta.tags, expected one of the two")
        meta["tags"] = sent.tags
    check_meta(meta, "set.meta", settings)
    check_tags(meta.get("tags"), "set.tags", settings)
    change = DocumentChange(
        merged={key: value for key, value in meta.items() if value is not None},
        removed=[key for key, value in meta.items() if value is None],
        expires_at=_expiry(sent, at=at),
        half_life_seconds=UNSET
        if isinstance(sent.half_life_seconds, UnsetType)
        else half_life(sent.half_life_seconds),
    )
    if not change.of_content and change.expires_at is UNSET:
        raise InvalidField(
            "set: expected at least one of meta, tags, expires_at, ttl_seconds, half_life_seconds"
        )
    return change


def _expiry(sent: SetIn, *, at: datetime) -> datetime | UnsetType | None:
    if UNSET not in (sent.expires_at, sent.ttl_seconds):
        raise InvalidField("set: expected expires_at or ttl_seconds, and not both")
    if not isinstance(sent.expires_at, UnsetType):
        return utc(sent.expires_at, "set.expires_at")
    if isinstance(sent.ttl_seconds, UnsetType):
        return UNSET
    if sent.ttl_seconds is None:
        return None
    if not sent.ttl_seconds > 0:
        raise InvalidField("set.ttl_seconds: expected a positive number or null")
    ends = clock.after(at, sent.ttl_seconds)
    if ends is None:
        raise InvalidField("set.ttl_seconds: expected an end in the years 0001 to 9999 UTC")
    return ends


def facets_from(request: DocumentsFacetsIn, settings: Settings, *, at: datetime) -> FacetsAsked:
    """Raises InvalidField."""
    check_list(request, settings)
    if not 1 <= len(request.fields) <= MAX_FIELDS:
        raise InvalidField(f"fields: expected 1 to {MAX_FIELDS} fields, got {len(request.fields)}")
    fields = [_field(name, f"fields[{place}]") for place, name in enumerate(request.fields)]
    names = [field.name for field in fields]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InvalidField(f"fields[{place}]: expected each field once, got {name!r} twice")
    filters = filters_from(one_filter(request.filters, request.filter))
    return FacetsAsked(
        fields=fields,
        filters=replace(filters, unexpired_at=at),
        limit=min(request.limit or DEFAULT_LIMIT, MAX_LIMIT),
        max_bytes=settings.max_answer_bytes,
    )


def _field(name: Any, where: str) -> Field:
    field, keys = field_of(name, where)
    if field in WITHOUT_FACETS:
        raise InvalidField(f"{where}: expected a field that documents share, got {field!r}")
    return Field(field, keys)
