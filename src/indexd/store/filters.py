"""What a search or a deletion may be limited to, as one condition over indexd.chunks.

Only filters that are given are part of a statement: psycopg takes a long one apart anew each
time, which costs more than all else of a search outside PostgreSQL.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb


class Filters(msgspec.Struct, frozen=True):
    """All that are given must match."""

    tags: list[str] | None = None
    source_path: list[str] | None = None
    doc_id: list[str] | None = None
    source_ref_origin: list[str] | None = None
    ingested_after: datetime | None = None
    ingested_before: datetime | None = None
    meta: dict[str, Any] | None = None
    not_doc_id: str | None = None

    def __bool__(self) -> bool:
        """Whether any filter is given."""
        return any(getattr(self, name) is not None for name in self.__struct_fields__)


_BY_KEY = {
    "tags": "filter_keys && indexd.filter_keys_of(%(namespace)s, 'tag', %(tags)s::text[])",
    "source_path": """
        filter_keys && indexd.filter_keys_of(%(namespace)s, 'source_path', %(source_path)s::text[])
    """,
    "source_ref_origin": """
        filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'source_ref_origin', %(source_ref_origin)s::text[]
        )
    """,
}
"""What their index can tell; the values are compared again, for a key is a hash."""

TAGGED = f"""(
        {_BY_KEY["tags"]}
        AND EXISTS (
            SELECT
              FROM unnest(tags) AS tag
             CROSS JOIN unnest(%(tags)s::text[]) AS wanted
             WHERE tag = wanted OR starts_with(tag, wanted || '/')
        )
    )"""
"""A chunk has one of the tags, or a child of one."""

_CONTENT = {
    "tags": TAGGED,
    "source_path": f"""
        {_BY_KEY["source_path"]}
        AND source_path = ANY(%(source_path)s::text[])
    """,
    "source_ref_origin": f"""
        {_BY_KEY["source_ref_origin"]}
        AND source_ref_origin = ANY(%(source_ref_origin)s::text[])
    """,
    "doc_id": "doc_id = ANY(%(doc_ids)s::text[])",
    "not_doc_id": "doc_id <> %(not_doc_id)s::text",
    "meta": "meta @> %(meta)s::jsonb",
}
_IN_TIME = {
    "ingested_after": "ingested_at > %(ingested_after)s::timestamptz",
    "ingested_before": "ingested_at < %(ingested_before)s::timestamptz",
}


def content(filters: Filters) -> str:
    """A chunk passes all filters but those of time."""
    return _all_of(_CONTENT, filters)


def in_time(filters: Filters) -> str:
    """A chunk passes the filters of time."""
    return _all_of(_IN_TIME, filters)


def matches(filters: Filters) -> str:
    """A chunk passes; the namespace itself is the statement's to name."""
    return _all_of(_CONTENT | _IN_TIME, filters)


def may_match(filters: Filters) -> str:
    """For counting: to the planner a key and its value are two conditions, each as rare again."""
    return _all_of(_CONTENT | _BY_KEY | _IN_TIME, filters)


def _all_of(conditions: Mapping[str, str], filters: Filters) -> str:
    given = [sql for name, sql in conditions.items() if getattr(filters, name) is not None]
    return f"({' AND '.join(given)})" if given else "true"


def parameters(filters: Filters) -> dict[str, Any]:
    """The values that these conditions need, beside `namespace`."""
    values = {
        "tags": filters.tags,
        "source_path": filters.source_path,
        "source_ref_origin": filters.source_ref_origin,
        "doc_ids": filters.doc_id,
        "not_doc_id": filters.not_doc_id,
        "ingested_after": filters.ingested_after,
        "ingested_before": filters.ingested_before,
        "meta": None if filters.meta is None else Jsonb(filters.meta),
    }
    return {name: value for name, value in values.items() if value is not None}
