"""The filters of a search, a list or a deletion, as one SQL condition.

    of_chunks, of_chunks_one_by_one    over `chunks`, a row of indexd.chunks
    of_fields                          over `fields`, a row of indexd.chunk_fields
    for_documents                      over `document`, a row of indexd.documents

Only filters that are given are part of a statement: psycopg parses a long statement anew each
time, which costs more than everything else that a search does outside PostgreSQL.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace
from psycopg.types.json import Jsonb

from indexd.errors import FilterTooDear, TookTooLong
from indexd.store.visible import live
from indexd.store.where import conditions
from indexd.store.where.conditions import OVER_CHUNKS, OVER_FIELDS, Columns
from indexd.store.where.tree import Where


class Filters(msgspec.Struct, frozen=True):
    """All that are given must match. None is not given.

    tags                     one of the tags of the chunk or its document is one of these, or a
                             child of one: `a` matches `a/b`
    source_path, doc_id,     the chunk's value is one of these
    source_ref_origin
    ingested_after, _before  the chunk's ingested_at is later, earlier: equal does not match
    ingested_until           the chunk's ingested_at is not later: that of a search in the past
    meta                     the document's meta with the chunk's over it contains this JSON object,
                             as `@>` does
    where                    the chunk passes this tree
    not_doc_id               the chunk is of another document
    unexpired_at             the chunk's document does not expire until then
    """

    tags: list[str] | None = None
    source_path: list[str] | None = None
    doc_id: list[str] | None = None
    source_ref_origin: list[str] | None = None
    ingested_after: datetime | None = None
    ingested_before: datetime | None = None
    ingested_until: datetime | None = None
    meta: dict[str, Any] | None = None
    where: Where | None = None
    not_doc_id: str | None = None
    unexpired_at: datetime | None = None

    def __bool__(self) -> bool:
        """Whether any filter is given."""
        return self != _NONE

    @property
    def asked(self) -> "Filters":
        """Without what passes over expired documents, which are few."""
        return self if self.unexpired_at is None else replace(self, unexpired_at=None)

    @property
    def is_opaque(self) -> bool:
        """Whether no index and no statistics of the planner say how many chunks pass."""
        return self.where is not None and conditions.index_condition(self.where) is None


_NONE = Filters()

_BY_KEY = {
    name: f"""fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, '{kind}', %({name})s::text[]
        )"""
    for name, kind in (
        ("tags", "tag"),
        ("source_path", "source_path"),
        ("source_ref_origin", "source_ref_origin"),
    )
}
"""The conditions that an index answers. A key is a hash, so the values are compared again."""

TAGGED = f"""(
        {_BY_KEY["tags"]}
        AND EXISTS (
            SELECT 1
              FROM unnest(fields.tags) AS tag
             CROSS JOIN unnest(%(tags)s::text[]) AS wanted
             WHERE tag = wanted OR starts_with(tag, wanted || '/')
        )
    )"""
"""SQL: a chunk or its document has one of the tags, or a child of one."""

_FIELDS = {
    "tags": TAGGED,
    "source_path": f"""
        {_BY_KEY["source_path"]}
        AND fields.source_path = ANY(%(source_path)s::text[])
    """,
    "source_ref_origin": f"""
        {_BY_KEY["source_ref_origin"]}
        AND fields.source_ref_origin = ANY(%(source_ref_origin)s::text[])
    """,
    # The chunk's keys went before the document's when the fields were written.
    "meta": "fields.meta @> %(meta)s::jsonb",
}
"""Conditions over what is written beside each chunk alone."""

_ID_AND_TIME = {
    "doc_id": "doc_id = ANY(%(doc_ids)s::text[])",
    "not_doc_id": "doc_id <> %(not_doc_id)s::text",
    "ingested_after": "ingested_at > %(ingested_after)s::timestamptz",
    "ingested_before": "ingested_at < %(ingested_before)s::timestamptz",
    "ingested_until": "ingested_at <= %(ingested_until)s::timestamptz",
}
"""Conditions over columns that chunks, their fields and documents have alike."""

_IN_TIME = ("ingested_after", "ingested_before", "ingested_until")


@contextmanager
def in_time(filters: Filters) -> Iterator[None]:
    """Turns TookTooLong into FilterTooDear where there is a filter: never a part of an answer."""
    try:
        yield
    except TookTooLong as error:
        if not filters.asked:
            raise
        raise FilterTooDear(
            "the filter takes longer than a statement may",
            hint="narrow it by tags, source_path, doc_id or a time, which have an index",
        ) from error


def of_chunks(filters: Filters) -> str:
    """SQL: a row `chunks` passes; the statement itself names the namespace.

    The planner may begin with the fields that match, and look up their chunks.
    """
    return _all_of([*_alike(filters, "chunks"), *_beside(filters, "EXISTS ({})")])


def of_chunks_one_by_one(filters: Filters, *, in_time: bool = True) -> str:
    """The same, looked up for one chunk after the other, in the order in which these are read.

    Without `in_time`, all filters but those of time.
    """
    # A value that is read is no join, which the planner could turn around.
    looked_up = _beside(filters, "coalesce(({}), false)", columns="true")
    return _all_of([*_alike(filters, "chunks", in_time=in_time), *looked_up])


def of_chunks_in_time(filters: Filters) -> str:
    """SQL: a row `chunks` passes the filters of time."""
    return _all_of(
        f"chunks.{_ID_AND_TIME[name]}" for name in _IN_TIME if getattr(filters, name) is not None
    )


def of_fields(filters: Filters) -> str:
    """SQL: a row `fields` passes; the statement itself names the namespace."""
    given = [*_alike(filters, "fields"), *_given(_FIELDS, filters)]
    if filters.where is not None:
        given.append(_with_others(filters.where, OVER_FIELDS, base="fields"))
    if filters.unexpired_at is not None:
        given.append(_unexpired("fields"))
    return _all_of(given)


def may_match(filters: Filters) -> str:
    """SQL for counting: a row `fields` passes, by what the planner knows the frequencies of.

    It would multiply the selectivities of a hash key and its value, which are one condition.
    """
    given = [*_alike(filters, "fields"), *_given(_FIELDS | _BY_KEY, filters)]
    if filters.where is not None and (sql := conditions.index_condition(filters.where)):
        given.append(sql)
    return _all_of(given)


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
    of_document = {
        "source_ref_origin": "document.source_ref_origin = ANY(%(source_ref_origin)s::text[])",
        "unexpired_at": live("document", at="unexpired_at"),
    }
    given = [*_alike(filters, "document"), *_given(by_chunk | of_document, filters)]
    if filters.where is not None:
        given.append(conditions.document_condition(filters.where))
    return _all_of(given)


def _beside(filters: Filters, form: str, columns: str = "1") -> list[str]:
    """SQL: what stands beside a row `chunks` passes; `form` takes a SELECT of one row or none."""
    given = list(_given(_FIELDS, filters))
    needed = {"fields"} if given else set()
    alone: list[str] = []
    if filters.where is not None:
        tree = conditions.chunk_condition(filters.where, OVER_CHUNKS)
        relations = conditions.relations(filters.where, OVER_CHUNKS) - {"chunks"}
        (given if relations else alone).append(tree)
        needed |= relations
    if needed:
        alone.append(form.format(_joined(columns, needed, "chunks", given)))
    if filters.unexpired_at is not None:
        alone.append(_unexpired("chunks"))
    return alone


_RELATIONS = {
    "chunks": ("indexd.chunks", ("doc_id", "ordinal")),
    "fields": ("indexd.chunk_fields AS fields", ("doc_id", "ordinal")),
    "document": ("indexd.documents AS document", ("doc_id",)),
}
"""Each relation as FROM names it, and its key below the namespace."""


def _joined(columns: str, relations: Iterable[str], base: str, given: Iterable[str]) -> str:
    """SELECT the rows of some relations that belong to a row of `base` and pass."""
    chosen = [_RELATIONS[name][0] for name in sorted(relations)]
    keys = [
        condition
        for name in sorted(relations)
        for condition in (
            f"{name}.namespace = %(namespace)s",
            *(f"{name}.{column} = {base}.{column}" for column in _RELATIONS[name][1]),
        )
    ]
    passed = "\n               AND ".join([*keys, *given])
    return f"""
            SELECT {columns}
              FROM {", ".join(chosen)}
             WHERE {passed}
           """


def _with_others(where: Where, columns: Columns, *, base: str) -> str:
    """SQL: a row of `base` passes a tree, which may read other relations too."""
    tree = conditions.chunk_condition(where, columns)
    others = conditions.relations(where, columns) - {base}
    return f"EXISTS ({_joined('1', others, base, [tree])})" if others else tree


def _unexpired(base: str) -> str:
    return f"""NOT EXISTS (
            SELECT 1
              FROM indexd.documents AS expired
             WHERE expired.namespace = %(namespace)s
               AND expired.doc_id = {base}.doc_id
               AND expired.expires_at <= %(unexpired_at)s::timestamptz
           )"""


def _alike(filters: Filters, base: str, *, in_time: bool = True) -> list[str]:
    return [
        f"{base}.{sql}"
        for name, sql in _ID_AND_TIME.items()
        if getattr(filters, name) is not None and (in_time or name not in _IN_TIME)
    ]


def _given(conditions: Mapping[str, str], filters: Filters) -> list[str]:
    return [sql for name, sql in conditions.items() if getattr(filters, name) is not None]


def _all_of(given: Iterable[str]) -> str:
    return f"({joined})" if (joined := " AND ".join(given)) else "true"


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
        "unexpired_at": filters.unexpired_at,
        "meta": None if filters.meta is None else Jsonb(filters.meta),
    }
    given = {name: value for name, value in values.items() if value is not None}
    return given if filters.where is None else given | conditions.parameters(filters.where)
