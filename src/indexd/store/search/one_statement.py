"""Searches in one statement and one round trip: a scan, or the k nearest where these suffice.

What the process remembers of a namespace says how to ask. Whether that still holds is read in the
same statement, so in the same snapshot as the answer. Where it does not hold, or where the nearest
chunks prove nothing, the result is discarded and the search runs in a snapshot of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from indexd.store.namespaces import Facts, facts_values
from indexd.store.search import statements
from indexd.store.search.bounds import epsilon, local_dimensionality
from indexd.store.search.costs import Tuning
from indexd.store.search.found import Found
from indexd.store.search.hits import FIELDS, Hit
from indexd.store.search.plan import Nearest, Scan
from indexd.store.search.query import Query


class Shortcut(msgspec.Struct, frozen=True):
    """A query, the plan for it, and the facts on which that rests."""

    query: Query
    facts: Facts
    plan: Scan | Nearest


class Statement(msgspec.Struct, frozen=True):
    """What is sent: settings of its transaction, the statement, its values by name."""

    settings: Sequence[str]
    text: str
    values: Mapping[str, Any]


def statement(shortcut: Shortcut, tuning: Tuning) -> Statement:
    """How to ask."""
    query, facts, plan = shortcut.query, shortcut.facts, shortcut.plan
    asked = facts_values(facts.namespace, facts.vectors_dimension, query.unexpired_at)
    if isinstance(plan, Scan):
        text = statements.scan_shortcut(facts.vectors_dimension, query.filters)
        return Statement((), text, statements.values_of(query, facts, **asked))
    named: dict[str, Any] = {"vector": query.vector, "k": query.k, "at": query.at}
    return Statement(
        statements.index_settings(min(plan.ef, tuning.ef_max), None),
        statements.nearest_shortcut(facts.vectors_dimension),
        named | asked | {"similar_rows": plan.rows},
    )


class ShortcutRow(msgspec.Struct, frozen=True):
    """A row of the answer. Without a hit, where nothing was found, `hit` is None."""

    facts: Facts
    hit: Hit | None
    cosines: list[float] | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> "ShortcutRow":
        """From the columns in the order of statements.SHORTCUT."""
        facts, (doc_id, *rest), cosines = row[:_HIT], row[_HIT:_COSINES], row[_COSINES]
        hit = None if doc_id is None else Hit(doc_id, *rest)
        return cls(Facts(*facts), hit, cosines)


_HIT = len(Facts.__struct_fields__)
_COSINES = _HIT + len(FIELDS)
"""Places of the first column of a hit, and of the cosines."""


def holds(shortcut: Shortcut, rows: Sequence[ShortcutRow]) -> bool:
    """Whether the namespace is as it was remembered, but for the number of its chunks."""
    if not rows:
        return False
    [first, *_] = rows
    expected = shortcut.facts
    return msgspec.structs.replace(first.facts, chunks=expected.chunks) == expected


def answer(shortcut: Shortcut, rows: Sequence[ShortcutRow], tuning: Tuning) -> Found | None:
    """The hits, if no chunk that was not seen can be among them; `holds` comes first."""
    query, plan = shortcut.query, shortcut.plan
    found = [row.hit for row in rows if row.hit is not None]
    if isinstance(plan, Scan):
        return Found(found, int(plan.rows), plan)
    assert query.vector is not None  # noqa: S101 (a plan by vector has one)
    cosines = next((row.cosines for row in rows if row.cosines is not None), [])
    # An unseen chunk has at most the lowest cosine seen plus two errors of halfvec: its own, and
    # that of the chunk seen. A chunk that has a half-life of its own decays after all.
    proved = (
        len(found) == query.k
        and found[-1].score > max(cosines[-1] + 2 * epsilon(query.vector), 0.0)
        and not tuning.is_high(local_dimensionality(cosines))
        and all(hit.half_life_seconds is None for hit in found)
    )
    return Found(found, plan.rows, plan, tuning.degraded) if proved else None
