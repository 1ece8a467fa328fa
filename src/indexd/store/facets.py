"""Facets: which values a field has over many documents, and how many documents have each.

A document counts once for each value, whichever of its chunks have it; of an array in meta each
element is a value. Values that filters take as equal are one: 1 and 1.0, and times as instants.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from indexd.clock import FIRST, LAST
from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.filters import Filters, for_documents, parameters
from indexd.store.where.tree import KINDS

EXACT = 200_000
"""Documents up to which all are counted; of more, a sample is."""

SAMPLE = 100_000
"""Documents of a sample, about."""

SHARES = 1_024
"""Parts that documents fall into by a hash of their id; a sample is some of the parts."""

VALUE_BYTES = 32
"""Bytes that a value takes in the answer beside its own."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Field(msgspec.Struct, frozen=True):
    """A field as `where` names it, and the path below `meta`."""

    field: str
    keys: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return ".".join((self.field, *self.keys))

    @property
    def is_time(self) -> bool:
        return KINDS[self.field] == "time"


class FacetValue(msgspec.Struct, frozen=True):
    """A value, and how many documents have it."""

    value: Annotated[Any, Meta(description="The value, of any JSON type but null")]
    documents: Annotated[int, Meta(description="How many documents have it")]


class Facet(msgspec.Struct, frozen=True):
    """The values of one field."""

    values: Annotated[
        list[FacetValue],
        Meta(description="The values that most documents have, these first; then by value"),
    ]
    min: Annotated[
        float | datetime | None,
        Meta(description="The least number, or the earliest time where there are no numbers"),
    ]
    max: Annotated[
        float | datetime | None,
        Meta(description="The greatest number, or the latest time where there are no numbers"),
    ]
    missing: Annotated[int, Meta(description="How many documents have no value")]
    truncated: Annotated[bool, Meta(description="Whether there are more values than these")]
    estimated: Annotated[
        bool, Meta(description="Whether this is told from a sample: of more than 200,000 documents")
    ]


class FacetsAsked(msgspec.Struct, frozen=True):
    """What is asked for; `max_bytes` is about what the values of all fields may take together."""

    fields: Sequence[Field]
    filters: Filters
    limit: int
    max_bytes: int


def count_statement(filters: Filters) -> str:
    """SQL: how many documents pass."""
    return f"""
    /* indexd:facets.count */
    SELECT count(*)
      FROM indexd.documents AS document
     WHERE document.namespace = %(namespace)s
       AND {for_documents(filters)}
    """


_OF_DOCUMENT = {
    "doc_id": "doc_id",
    "source_ref.origin": "source_ref_origin",
    "source_ref.id": "source_ref_id",
    "source_ref.trust_level": "source_ref_trust_level",
    "ingested_at": "ingested_at",
    "created_at": "created_at",
    "expires_at": "expires_at",
    "version": "version",
}
"""The column of indexd.documents that each of these fields is."""

_OF_CHUNK = """
                SELECT chosen.doc_id, value
                  FROM chosen
                  JOIN indexd.chunk_fields AS fields
                    ON fields.namespace = %(namespace)s
                   AND fields.doc_id = chosen.doc_id"""


def _values_of(field: Field, place: int) -> str:
    """SQL: doc_id and value as jsonb, some of them more than once."""
    if (column := _OF_DOCUMENT.get(field.field)) is not None:
        value = f"(extract(epoch FROM {column}) * 1000000)::bigint" if field.is_time else column
        return f"""
                SELECT doc_id, to_jsonb({value}) AS value
                  FROM chosen"""
    if field.field == "tags":
        return f"""{_OF_CHUNK}
                 CROSS JOIN LATERAL (SELECT to_jsonb(unnest(fields.tags)) AS value) AS one"""
    if field.field == "source_path":
        return f"""{_OF_CHUNK}
                 CROSS JOIN LATERAL (SELECT to_jsonb(fields.source_path) AS value) AS one"""
    steps = "".join(f" -> %(key_{place}_{n})s::text" for n in range(len(field.keys)))
    return f"""{_OF_CHUNK}
                 CROSS JOIN LATERAL (SELECT fields.meta{steps} AS found) AS one
                 CROSS JOIN LATERAL jsonb_array_elements(
                    CASE jsonb_typeof(found)
                        WHEN 'array' THEN found
                        ELSE jsonb_build_array(found)
                    END
                 ) AS value
                 WHERE found IS NOT NULL"""


def _facet(field: Field, place: int) -> str:
    """SQL: named subqueries that end in facet_n, a row of _Row."""
    same = "indexd.comparable(value)" if field.field == "meta" else "value"
    return f"""
    found_{place} AS MATERIALIZED (
        SELECT doc_id, {same} AS same, min(value::text COLLATE "C") AS shown
          FROM ({_values_of(field, place)}
               ) AS every
         WHERE jsonb_typeof(value) <> 'null'
         GROUP BY doc_id, same
    ),
    counted_{place} AS MATERIALIZED (
        SELECT same, min(shown COLLATE "C") AS shown, count(*) AS documents
          FROM found_{place}
         GROUP BY same
    ),
    ranked_{place} AS (
        SELECT *, sum(octet_length(shown) + {VALUE_BYTES}) OVER (ORDER BY rank) AS bytes
          FROM (
                SELECT shown,
                       documents,
                       row_number() OVER (
                           ORDER BY documents DESC,
                                    CASE
                                        WHEN jsonb_typeof(same) = 'number'
                                        THEN (same #>> '{{}}')::numeric
                                    END NULLS LAST,
                                    (shown::jsonb #>> '{{}}') COLLATE "C",
                                    shown COLLATE "C"
                       ) AS rank
                  FROM counted_{place}
               ) AS ordered
    ),
    facet_{place} AS (
        SELECT {place} AS place,
               (SELECT count(*) FROM counted_{place}) AS "values",
               (SELECT count(DISTINCT doc_id) FROM found_{place}) AS present,
               (
                SELECT coalesce(
                           jsonb_agg(
                               jsonb_build_object('value', shown::jsonb, 'documents', documents)
                               ORDER BY rank
                           ),
                           '[]'
                       )
                  FROM ranked_{place}
                 WHERE rank <= %(limit)s
                   AND bytes <= %(max_bytes)s
               ) AS first,
               extent.*
          FROM (
                SELECT min((same #>> '{{}}')::numeric) FILTER (WHERE number)::float8 AS least,
                       max((same #>> '{{}}')::numeric) FILTER (WHERE number)::float8 AS greatest,
                       min((same ->> 't')::bigint) FILTER (WHERE time) AS earliest,
                       max((same ->> 't')::bigint) FILTER (WHERE time) AS latest
                  FROM (
                        SELECT same,
                               jsonb_typeof(same) = 'number' AS number,
                               jsonb_typeof(same) = 'object' AND same ? 't' AS time
                          FROM counted_{place}
                       ) AS kinds
               ) AS extent
    )"""


def facets_statement(asked: FacetsAsked, *, sampled: bool) -> str:
    """SQL: a row per field, and how many documents were looked at."""
    columns = sorted(
        {"doc_id"} | {_OF_DOCUMENT[one.field] for one in asked.fields if one.field in _OF_DOCUMENT}
    )
    some = (
        "\n           AND (hashtextextended(doc_id, 0) & %(mask)s) < %(share)s" if sampled else ""
    )
    facets = ",".join(_facet(field, place) for place, field in enumerate(asked.fields))
    every = "\n     UNION ALL\n    ".join(
        f"SELECT * FROM facet_{place}" for place in range(len(asked.fields))
    )
    return f"""
    /* indexd:facets.values */
    WITH chosen AS MATERIALIZED (
        SELECT {", ".join(columns)}
          FROM indexd.documents AS document
         WHERE document.namespace = %(namespace)s
           AND {for_documents(asked.filters)}{some}
    ),{facets}
    SELECT facets.*, (SELECT count(*) FROM chosen) AS documents
      FROM (
    {every}
           ) AS facets
     ORDER BY place
    """


class _Row(msgspec.Struct, frozen=True):
    place: int
    values: int
    present: int
    first: list[dict[str, Any]]
    least: float | None
    greatest: float | None
    earliest: int | None
    latest: int | None
    documents: int


async def facets(connection: Connection, namespace: str, asked: FacetsAsked) -> dict[str, Facet]:
    """The facets by the names of their fields; above EXACT documents, those of a sample."""
    values = {"namespace": namespace, **parameters(asked.filters)}
    total = await rows.value(connection, count_statement(asked.filters), values)
    sampled = total > EXACT
    values |= {
        "limit": asked.limit,
        "max_bytes": asked.max_bytes // len(asked.fields),
        "mask": SHARES - 1,
        "share": math.ceil(SHARES * SAMPLE / max(total, 1)),
        **dict(_keys(asked.fields)),
    }
    found = await rows.every(connection, _Row, facets_statement(asked, sampled=sampled), values)
    return {
        field.name: _told(row, field, total if sampled else row.documents)
        for field, row in zip(asked.fields, found, strict=True)
    }


def _keys(fields: Sequence[Field]) -> Iterator[tuple[str, str]]:
    for place, field in enumerate(fields):
        for n, key in enumerate(field.keys):
            yield f"key_{place}_{n}", key


def _told(row: _Row, field: Field, total: int) -> Facet:
    factor = total / row.documents if row.documents else 1.0
    least: float | datetime | None = row.least
    greatest: float | datetime | None = row.greatest
    if field.is_time:
        least, greatest = _moment(row.least), _moment(row.greatest)
    elif row.least is None:
        least, greatest = _moment(row.earliest), _moment(row.latest)
    return Facet(
        values=[
            FacetValue(
                _moment(one["value"]) if field.is_time else one["value"],
                round(one["documents"] * factor),
            )
            for one in row.first
        ],
        min=least,
        max=greatest,
        missing=round((row.documents - row.present) * factor),
        truncated=len(row.first) < row.values,
        estimated=row.documents != total,
    )


def _moment(microseconds: float | None) -> datetime | None:
    """The time so long after 1970; one that an offset moves out of the years 1 to 9999 is cut."""
    if microseconds is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return FIRST if microseconds < 0 else LAST
