"""An adaptive concurrency limit: how many requests may work at once under overload.

Each request should be nearly as fast as if it were alone. Which number allows that depends on the
database's cores, on what else they do, and on the requests, so it is measured: the latency of one
request at a time, and the latency at the present limit. The limit follows the ratio of the two (as
in TCP Vegas, Brakmo and Peterson 1995, with latency for the round trip). Medians are compared,
because a few slow requests say nothing of the others.
"""

import time
from collections.abc import Callable
from statistics import median

TOLERANCE = 1.1
"""Target latency under concurrency, as a multiple of the median of one request at a time."""

SAMPLE = 30
"""Requests after which a limit is judged."""

SMALL_SAMPLE = 5
SMALL_SAMPLE_SECONDS = 2.0
"""Requests after which it is judged where they are slow, and the seconds that must have passed."""

SOLO_SECONDS = 30.0
"""Seconds for which the solo latency is trusted: the requests or the machine may change."""


class ConcurrencyLimit:
    """`limit` is the number to apply now, `settled` the one found so far, both at most `most`.

    They differ while the solo latency is measured: then `limit` is 1. `first` is a guess to start
    from.
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
        """Overload begins: what was sampled before it does not count."""
        self._begin_sample()

    def note_excess(self) -> None:
        """A request came beyond the limit.

        Without enough of them the limit is not used up, and the sample is discarded.
        """
        self._excess += 1

    def note_latency(self, seconds: float) -> None:
        """A request ended, after this time at work."""
        now = self._clock()
        if now - seconds < self._began:
            return  # it began under the limit before
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
        if ratio > 0.9 * TOLERANCE:  # hardly slower than alone
            found = max(found, self.settled + 1)
        self.settled = min(max(found, 1), self._most)

    def _begin_sample(self) -> None:
        self._began, self._latencies, self._excess = self._clock(), list[float](), 0
        self._measures_solo = self._began >= self._solo_until
        self.limit = 1 if self._measures_solo else self.settled
