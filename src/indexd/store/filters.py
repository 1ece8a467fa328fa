"""What a search or a deletion may be limited to, as one condition over indexd.chunks.

Absent filters are NULL. Statements are always planned for the values they come with
(plan_cache_mode = force_custom_plan), so PostgreSQL drops the conditions of absent filters
before it plans, and finds the index of those that are present.
"""

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


TAGGED = """(
            filter_keys && indexd.filter_keys_of(%(namespace)s, 'tag', %(tags)s)
            AND EXISTS (
                SELECT
                  FROM unnest(tags) AS tag
                 CROSS JOIN unnest(%(tags)s::text[]) AS wanted
                 WHERE tag = wanted OR starts_with(tag, wanted || '/')
            )
        )"""
"""A chunk has one of the tags, or a child of one."""

CONTENT = f"""(
        (%(tags)s::text[] IS NULL OR {TAGGED})
    AND (%(source_path)s::text[] IS NULL OR (
            filter_keys && indexd.filter_keys_of(%(namespace)s, 'source_path', %(source_path)s)
            AND source_path = ANY(%(source_path)s)
        ))
    AND (%(source_ref_origin)s::text[] IS NULL OR (
            filter_keys && indexd.filter_keys_of(
                %(namespace)s, 'source_ref_origin', %(source_ref_origin)s
            )
            AND source_ref_origin = ANY(%(source_ref_origin)s)
        ))
    AND (%(doc_ids)s::text[] IS NULL OR doc_id = ANY(%(doc_ids)s))
    AND (%(not_doc_id)s::text IS NULL OR doc_id <> %(not_doc_id)s)
    AND (%(meta)s::jsonb IS NULL OR meta @> %(meta)s)
)"""
"""A chunk passes all filters but those of time."""

IN_TIME = """(
        (%(ingested_after)s::timestamptz IS NULL OR ingested_at > %(ingested_after)s)
    AND (%(ingested_before)s::timestamptz IS NULL OR ingested_at < %(ingested_before)s)
)"""

MATCHES = f"({CONTENT} AND {IN_TIME})"
"""A chunk passes; the namespace itself is the statement's to name."""


def parameters(filters: Filters) -> dict[str, Any]:
    """The values that MATCHES needs, beside `namespace`."""
    return {
        "tags": filters.tags,
        "source_path": filters.source_path,
        "source_ref_origin": filters.source_ref_origin,
        "doc_ids": filters.doc_id,
        "not_doc_id": filters.not_doc_id,
        "ingested_after": filters.ingested_after,
        "ingested_before": filters.ingested_before,
        "meta": None if filters.meta is None else Jsonb(filters.meta),
    }
