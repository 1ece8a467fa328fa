"""How many chunks of a namespace are how old: what a sweep will cost.

It only steers: a histogram that is stale or wrong makes a search slower, never its answer another.
"""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime

import msgspec
import numpy as np

from indexd.db.pool import Connection
from indexd.store import rows

STEPS = 256
"""Quantiles kept per half-life class."""

STALE = 0.05
"""Share by which a namespace grows or shrinks before its histogram is counted anew."""


class Histogram(msgspec.Struct, frozen=True):
    """The chunks of one half-life class; `quantiles` are seconds since 1970, oldest first."""

    chunks: int
    quantiles: tuple[float, ...]

    def count_before(self, moment: float) -> float:
        """About how many chunks were ingested before this moment, in seconds since 1970."""
        steps = np.linspace(0, self.chunks, len(self.quantiles))
        return float(np.interp(moment, self.quantiles, steps))

    def start_of(self, chunks: float, *, until: float) -> float:
        """The moment from which on about this number of chunks lie before `until`."""
        wanted = self.count_before(until) - chunks
        if wanted <= 0:
            return -np.inf
        place = bisect_left(np.linspace(0, self.chunks, len(self.quantiles)).tolist(), wanted)
        return self.quantiles[max(place - 1, 0)]


Ages = dict[int, Histogram]
"""By half-life class."""


def moments(ages: Ages, count: int) -> list[float]:
    """About `count` moments, in seconds since 1970, between which about as many chunks lie each."""
    total = sum(one.chunks for one in ages.values())
    found: list[float] = []
    for one in ages.values():
        own = max(round(count * one.chunks / total), 1)
        found += [float(moment) for moment in np.quantile(one.quantiles, np.arange(own) / own)]
    return found


class _Row(msgspec.Struct, frozen=True):
    half_life_class: int
    chunks: int
    quantiles: list[float]


async def counted_at(connection: Connection, namespace: str) -> datetime | None:
    """When the histogram was counted last; None where nobody counted yet."""
    at: datetime | None = await rows.value(
        connection,
        """
        /* indexd:search.ages_counted_at */
        SELECT max(counted_at)
          FROM indexd.chunk_ages
         WHERE namespace = %(namespace)s
        """,
        {"namespace": namespace},
    )
    return at


async def read(connection: Connection, namespace: str) -> Ages:
    """As it was counted last; empty where nobody counted yet."""
    found = await rows.every(
        connection,
        _Row,
        """
        /* indexd:search.ages */
        SELECT half_life_class, chunks, quantiles
          FROM indexd.chunk_ages
         WHERE namespace = %(namespace)s
        """,
        {"namespace": namespace},
    )
    return {row.half_life_class: Histogram(row.chunks, tuple(row.quantiles)) for row in found}


async def stale(connection: Connection, namespaces: Sequence[str]) -> list[str]:
    """Those of the namespaces whose histogram was never counted or no longer fits their size."""
    return await rows.column(
        connection,
        """
        /* indexd:search.ages_stale */
        SELECT namespaces.namespace
          FROM indexd.namespaces
          LEFT JOIN (
                SELECT namespace, sum(chunks) AS chunks
                  FROM indexd.chunk_ages
                 GROUP BY namespace
               ) AS counted
            ON counted.namespace = namespaces.namespace
         WHERE namespaces.namespace = ANY(%(namespaces)s)
           AND (
                counted.chunks IS NULL
                OR abs(counted.chunks - namespaces.chunks) > %(stale)s * namespaces.chunks
               )
        """,
        {"namespaces": list(namespaces), "stale": STALE},
    )


async def count(connection: Connection, namespace: str, *, at: datetime) -> None:
    """Count one namespace's histogram anew: one pass over an index."""
    values = {
        "namespace": namespace,
        "steps": [step / STEPS for step in range(STEPS + 1)],
        "at": at,
    }
    async with connection.transaction():
        await connection.execute(
            """
            /* indexd:search.ages_clear */
            DELETE FROM indexd.chunk_ages
             WHERE namespace = %(namespace)s
            """,
            values,
        )
        await connection.execute(
            """
            /* indexd:search.ages_count */
            INSERT INTO indexd.chunk_ages (
                namespace, half_life_class, chunks, quantiles, counted_at
            )
            SELECT %(namespace)s,
                   half_life_class,
                   count(*),
                   percentile_disc(%(steps)s::float8[]) WITHIN GROUP (
                       ORDER BY date_part('epoch', ingested_at)
                   ),
                   %(at)s
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
             GROUP BY half_life_class
            """,
            values,
        )
