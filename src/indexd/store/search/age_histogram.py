"""How the chunks of a namespace are spread over time, to foretell what a sweep costs.

Only steers: a spread that is stale or wrong costs a search time, never an answer.
"""

import time
from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime

import msgspec
import numpy as np

from indexd.db import Connection

STEPS = 256
"""Quantiles kept per half-life class."""

STALE = 0.05
"""A spread is counted anew once the namespace grew or shrank by this share."""


class Spread(msgspec.Struct, frozen=True):
    """The chunks of one half-life class; `quantiles` are seconds since 1970, oldest first."""

    chunks: int
    quantiles: tuple[float, ...]

    def older(self, moment: float) -> float:
        """About how many chunks are older than this."""
        steps = np.linspace(0, self.chunks, len(self.quantiles))
        return float(np.interp(moment, self.quantiles, steps))

    def before(self, moment: float, chunks: float) -> float:
        """The moment from which on about so many chunks lie before the other moment."""
        wanted = self.older(moment) - chunks
        if wanted <= 0:
            return -np.inf
        place = bisect_left(np.linspace(0, self.chunks, len(self.quantiles)).tolist(), wanted)
        return self.quantiles[max(place - 1, 0)]


Ages = dict[int, Spread]
"""By half-life class."""

ASKED_AGAIN = 10.0
"""So many seconds a process goes by what it read."""


class _Read(msgspec.Struct, frozen=True):
    asked: float
    counted_at: datetime
    ages: Ages


_read: dict[str, _Read] = {}
_KEPT = 1_000


async def of(connection: Connection, namespace: str) -> Ages:
    """As counted a few seconds ago or before; empty where nobody counted yet."""
    known, now = _read.get(namespace), time.monotonic()
    if known and now - known.asked < ASKED_AGAIN:
        return known.ages
    cursor = await connection.execute(
        """
        SELECT max(counted_at)
          FROM indexd.chunk_ages
         WHERE namespace = %(namespace)s
        """,
        {"namespace": namespace},
    )
    [counted_at] = await cursor.fetchone() or (None,)
    if counted_at is None:
        return {}
    if known and known.counted_at == counted_at:
        _read[namespace] = msgspec.structs.replace(known, asked=now)
        return known.ages
    cursor = await connection.execute(
        """
        SELECT half_life_class, chunks, quantiles
          FROM indexd.chunk_ages
         WHERE namespace = %(namespace)s
        """,
        {"namespace": namespace},
    )
    found = {row[0]: Spread(row[1], tuple(row[2])) for row in await cursor.fetchall()}
    if len(_read) >= _KEPT:
        _read.clear()
    _read[namespace] = _Read(now, counted_at, found)
    return found


async def stale(connection: Connection, namespaces: Sequence[str]) -> list[str]:
    """Those of the namespaces whose spread was never counted or no longer fits their size."""
    cursor = await connection.execute(
        """
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
    return [namespace for (namespace,) in await cursor.fetchall()]


async def count(connection: Connection, namespace: str, *, at: datetime) -> None:
    """Count one namespace's spread anew: one pass over an index."""
    values = {
        "namespace": namespace,
        "steps": [step / STEPS for step in range(STEPS + 1)],
        "at": at,
    }
    async with connection.transaction():
        await connection.execute(
            "DELETE FROM indexd.chunk_ages WHERE namespace = %(namespace)s", values
        )
        await connection.execute(
            """
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
