"""About how many chunks of a namespace pass a filter: what it costs to scan just those."""

from typing import Any

import msgspec

from indexd.db import Connection
from indexd.store.filters import Filters, may_match
from indexd.store.namespaces import Facts
from indexd.store.search.costs import Tuning


def similar_rows(k: int) -> int:
    """Rows of the similar arm under a filter."""
    return max(64, 2 * k)


PREFERRED = 1.5
"""A scan is exact, so it may cost so many times what the similar arm costs."""


def scan_cost(matching: float, space: Facts, filters: Filters, tuning: Tuning) -> float:
    """Of scoring all that match, in microseconds."""
    in_time = Filters(
        ingested_after=filters.ingested_after, ingested_before=filters.ingested_before
    )
    if filters != in_time:
        return matching * tuning.matching_row
    # What came at one time lies together in the table.
    if filters != Filters() and space.half_life_seconds is None:
        return matching * tuning.undecayed_row
    return matching * tuning.exact_row


def similar_cost(matching: float, space: Facts, filters: Filters, tuning: Tuning) -> float:
    """Of one row that the similar arm finds, in microseconds: under a filter as many rows of the
    index are read as it takes to meet one that matches.
    """
    if filters == Filters():
        return tuning.index_row
    return tuning.filtered_index_row * space.chunks / max(matching, 1)


def are_few(matching: float, space: Facts, filters: Filters, k: int, tuning: Tuning) -> bool:
    """So few match that they are scanned."""
    similar_arm = max(
        similar_rows(k) * similar_cost(matching, space, filters, tuning),
        tuning.first_ef(space.chunks) * tuning.index_row,
    )
    return scan_cost(matching, space, filters, tuning) <= PREFERRED * similar_arm


def few(space: Facts, filters: Filters, k: int, tuning: Tuning) -> float | None:
    """How many match, about, if they are few; None also where nobody estimated it lately."""
    known = _known(space, filters)
    return known if known is not None and are_few(known, space, filters, k, tuning) else None


async def matching(
    connection: Connection, space: Facts, filters: Filters, values: dict[str, Any]
) -> float:
    """About how many chunks match: the planner's word, kept while the namespace stays as large."""
    known = _known(space, filters)
    if known is not None:
        return known
    cursor = await connection.execute(
        f"""
        EXPLAIN (FORMAT JSON)
        SELECT
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND {may_match(filters)}
        """,
        values,
    )
    [plan] = await cursor.fetchone() or ([],)
    rows = float(plan[0]["Plan"]["Plan Rows"])
    if len(_estimates) >= _KEPT:
        _estimates.clear()
    _estimates[_key(space, filters)] = (space.chunks, rows)
    return rows


_estimates: dict[tuple[str, bytes], tuple[int, float]] = {}
"""How large the namespace was, and how many of its chunks matched."""

_KEPT = 1_000


def _key(space: Facts, filters: Filters) -> tuple[str, bytes]:
    return space.namespace, msgspec.json.encode(filters, order="sorted")


def _known(space: Facts, filters: Filters) -> float | None:
    chunks, rows = _estimates.get(_key(space, filters), (0, 0.0))
    return rows if abs(space.chunks - chunks) <= 0.1 * chunks else None
