"""How many may work at a time in an overload, so that each is nearly as fast as if it were alone.

Which number that is depends on the database's cores, on what else they do, and on the requests, so
it is measured: how long a request takes where one works at a time, and where so many do. Their
number follows the ratio of the two (as in TCP Vegas, Brakmo and Peterson 1995, with latency for
the round trip). Medians, because a few slow requests say nothing of the others.
"""

import time
from collections.abc import Callable
from statistics import median

TOLERANCE = 1.1
"""Beside others a request may take so many times what it takes alone."""

ENOUGH = 30
FEW = 5
FEW_SECONDS = 2.0
"""A number is judged by so many requests, or, where they are slow, by fewer."""

ALONE_AGAIN_SECONDS = 30.0
"""How long what one takes alone is believed: the requests or the machine may change."""


class Knee:
    """`limit` is the number to go by now, at most `most`; `kept` the one found; first a guess."""

    def __init__(
        self, most: int, *, first: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._clock = clock
        self.limit = self.kept = min(first or most, most)
        self._alone = 0.0
        self._alone_until = -1.0
        self._measuring_alone = False
        self._stage()

    def start(self) -> None:
        """There is more to do than can be done, from now on."""
        self._stage()

    def wanted(self) -> None:
        """One more came than work at a time: while few do, they are not as many as they may."""
        self._wanted += 1

    def ended(self, seconds: float) -> None:
        """One came to its end, which took so long."""
        now = self._clock()
        if now - seconds < self._began:
            return  # it was at work already when there were more
        self._took.append(seconds)
        few = FEW if now - self._began >= FEW_SECONDS else ENOUGH
        if len(self._took) < few:
            return
        middle = median(self._took)
        if self._measuring_alone:
            self._alone, self._alone_until = middle, now + ALONE_AGAIN_SECONDS
        elif self._wanted >= len(self._took) / 2:
            self._follow(TOLERANCE * self._alone / max(middle, 1e-9))
        self._stage()

    def _follow(self, ratio: float) -> None:
        """`ratio` is how many times slower they might be."""
        found = round(self.kept * min(max(ratio, 0.5), 1.5))
        if ratio > 0.9 * TOLERANCE:  # hardly slower than alone
            found = max(found, self.kept + 1)
        self.kept = min(max(found, 1), self._most)

    def _stage(self) -> None:
        self._began, self._took, self._wanted = self._clock(), list[float](), 0
        self._measuring_alone = self._began >= self._alone_until
        self.limit = 1 if self._measuring_alone else self.kept
