"""An adaptive concurrency limit: how many requests may work at once under overload.

Each request should be nearly as fast as a request that runs alone. The limit that achieves this
depends on the database's cores, on their other load, and on the requests. Therefore it is derived
from measurements: the latency of one request at a time (solo latency), and the latency at the
present limit. The limit follows the ratio of the two, as TCP Vegas does with round-trip times
(Brakmo and Peterson 1995). Medians are compared, because a few slow requests must not change the
limit for all others.
"""

import time
from collections.abc import Callable
from statistics import median

TOLERANCE = 1.1
"""Target latency under concurrency, as a multiple of the median of one request at a time."""

SAMPLE = 30
"""Number of latencies that are measured before the limit is adapted."""

SMALL_SAMPLE = 5
SMALL_SAMPLE_SECONDS = 2.0
"""If requests are slow: number of latencies that suffice once this many seconds have passed."""

SOLO_SECONDS = 30.0
"""Seconds for which a measured solo latency is valid: later the requests may be different ones."""


class ConcurrencyLimit:
    """`limit` is the limit to apply now, `settled` the last one that was derived from measurements.

    They differ only while the solo latency is measured: then `limit` is 1. Both are at most `most`.
    `first` is the limit to start from.
    """

    def __init__(
        self, most: int, *, first: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._clock = clock
        self.limit = self.settled = min(first or most, most)
        self._solo = 0.0
        self._solo_until = -1.0
        self._measures_solo = False
        self._begin_sample()

    def start(self) -> None:
        """Overload begins: discard the latencies that were measured before."""
        self._begin_sample()

    def note_excess(self) -> None:
        """Count a request that arrived when the limit was reached.

        A sample with too few of these did not use the limit fully, and is discarded.
        """
        self._excess += 1

    def note_latency(self, seconds: float) -> None:
        """Record how long a finished request worked."""
        now = self._clock()
        if now - seconds < self._began:
            return  # it began under the previous limit
        self._latencies.append(seconds)
        enough = SMALL_SAMPLE if now - self._began >= SMALL_SAMPLE_SECONDS else SAMPLE
        if len(self._latencies) < enough:
            return
        middle = median(self._latencies)
        if self._measures_solo:
            self._solo, self._solo_until = middle, now + SOLO_SECONDS
        elif self._excess >= len(self._latencies) / 2:
            self._adapt(TOLERANCE * self._solo / max(middle, 1e-9))
        self._begin_sample()

    def _adapt(self, ratio: float) -> None:
        """`ratio` = target latency / measured latency; above 1 there is room for more."""
        found = round(self.settled * min(max(ratio, 0.5), 1.5))
        if ratio > 0.9 * TOLERANCE:  # the latency is nearly the solo latency
            found = max(found, self.settled + 1)
        self.settled = min(max(found, 1), self._most)

    def _begin_sample(self) -> None:
        self._began, self._latencies, self._excess = self._clock(), list[float](), 0
        self._measures_solo = self._began >= self._solo_until
        self.limit = 1 if self._measures_solo else self.settled
