"""The filters of a search, a list or a deletion, as one SQL condition.

    of_fields, may_match_fields             over `fields`, a row of indexd.chunk_fields
    for_documents                           over `document`, a row of indexd.documents
    content, in_time, matches, may_match    over indexd.chunks, by what is the chunk's own

Only filters that are given are part of a statement: psycopg parses a long statement anew each
time, which costs more than everything else that a search does outside PostgreSQL.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from psycopg.types.json import Jsonb


class Filters(msgspec.Struct, frozen=True):
    """All that are given must match. None is not given.

    tags                     one of the chunk's tags is one of these, or a child of one: `a` matches
                             `a/b`
    source_path, doc_id,     the chunk's value is one of these
    source_ref_origin
    ingested_after, _before  the chunk's ingested_at is later, earlier: equal does not match
    ingested_until           the chunk's ingested_at is not later: that of a search in the past
    meta                     the chunk's meta contains this JSON object, as `@>` does
    not_doc_id               the chunk is of another document
    """

    tags: list[str] | None = None
    source_path: list[str] | None = None
    doc_id: list[str] | None = None
    source_ref_origin: list[str] | None = None
    ingested_after: datetime | None = None
    ingested_before: datetime | None = None
    ingested_until: datetime | None = None
    meta: dict[str, Any] | None = None
    not_doc_id: str | None = None

    def __bool__(self) -> bool:
        """Whether any filter is given."""
        return self != _NONE


_NONE = Filters()

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
"""The conditions that an index answers. A key is a hash, so the values are compared again."""

TAGGED = f"""(
        {_BY_KEY["tags"]}
        AND EXISTS (
            SELECT
              FROM unnest(tags) AS tag
             CROSS JOIN unnest(%(tags)s::text[]) AS wanted
             WHERE tag = wanted OR starts_with(tag, wanted || '/')
        )
    )"""
"""SQL: a chunk has one of the tags, or a child of one."""

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
    "ingested_until": "ingested_at <= %(ingested_until)s::timestamptz",
}


def content(filters: Filters) -> str:
    """SQL: a chunk passes all filters but those of time."""
    return _all_of(_CONTENT, filters)


def in_time(filters: Filters) -> str:
    """SQL: a chunk passes the filters of time."""
    return _all_of(_IN_TIME, filters)


def matches(filters: Filters) -> str:
    """SQL: a chunk passes all filters; the statement itself names the namespace."""
    return _all_of(_CONTENT | _IN_TIME, filters)


def may_match(filters: Filters) -> str:
    """SQL for counting: a chunk passes, by hash keys only.

    The planner would multiply the selectivities of key and value, which are one condition.
    """
    return _all_of(_CONTENT | _BY_KEY | _IN_TIME, filters)


_FIELDS_BY_KEY = {
    name: f"""fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, '{kind}', %({name})s::text[]
        )"""
    for name, kind in (
        ("tags", "tag"),
        ("source_path", "source_path"),
        ("source_ref_origin", "source_ref_origin"),
    )
}
"""The conditions over fields that an index answers. A key is a hash, as in _BY_KEY."""

FIELDS_TAGGED = f"""(
        {_FIELDS_BY_KEY["tags"]}
        AND EXISTS (
            SELECT 1
              FROM unnest(fields.tags) AS tag
             CROSS JOIN unnest(%(tags)s::text[]) AS wanted
             WHERE tag = wanted OR starts_with(tag, wanted || '/')
        )
    )"""
"""SQL: a chunk or its document has one of the tags, or a child of one."""

_FIELDS = {
    "tags": FIELDS_TAGGED,
    "source_path": f"""
        {_FIELDS_BY_KEY["source_path"]}
        AND fields.source_path = ANY(%(source_path)s::text[])
    """,
    "source_ref_origin": f"""
        {_FIELDS_BY_KEY["source_ref_origin"]}
        AND fields.source_ref_origin = ANY(%(source_ref_origin)s::text[])
    """,
    "doc_id": "fields.doc_id = ANY(%(doc_ids)s::text[])",
    "not_doc_id": "fields.doc_id <> %(not_doc_id)s::text",
    # The chunk's keys went before the document's when the fields were written.
    "meta": "fields.meta @> %(meta)s::jsonb",
}
_FIELDS_IN_TIME = {name: f"fields.{sql}" for name, sql in _IN_TIME.items()}


def of_fields(filters: Filters) -> str:
    """SQL: a row `fields` of indexd.chunk_fields passes all filters, by the chunk or its document.

    The statement itself names the namespace.
    """
    return _all_of(_FIELDS | _FIELDS_IN_TIME, filters)


def may_match_fields(filters: Filters) -> str:
    """SQL for counting: a row `fields` passes, by hash keys only, as `may_match`."""
    return _all_of(_FIELDS | _FIELDS_BY_KEY | _FIELDS_IN_TIME, filters)


_OF_DOCUMENT = {
    "source_ref_origin": "document.source_ref_origin = ANY(%(source_ref_origin)s::text[])",
    "doc_id": "document.doc_id = ANY(%(doc_ids)s::text[])",
    "not_doc_id": "document.doc_id <> %(not_doc_id)s::text",
    "ingested_after": "document.ingested_at > %(ingested_after)s::timestamptz",
    "ingested_before": "document.ingested_at < %(ingested_before)s::timestamptz",
    "ingested_until": "document.ingested_at <= %(ingested_until)s::timestamptz",
}


def for_documents(filters: Filters) -> str:
    """SQL: a row `document` of indexd.documents passes all filters, each by any of its chunks."""
    by_chunk = {
        name: f"""EXISTS (
            SELECT 1
              FROM indexd.chunk_fields AS fields
             WHERE fields.namespace = %(namespace)s
               AND fields.doc_id = document.doc_id
               AND {_FIELDS[name]}
           )"""
        for name in ("tags", "source_path", "meta")
    }
    return _all_of(by_chunk | _OF_DOCUMENT, filters)


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
        "ingested_until": filters.ingested_until,
        "meta": None if filters.meta is None else Jsonb(filters.meta),
    }
    return {name: value for name, value in values.items() if value is not None}
