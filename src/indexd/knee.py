"""How many at a time are answered at the full rate: more only slow each other down.

Which number that is depends on the database's cores, on what else they do, and on the requests, so
it is found by trying, while there is more to do than can be done: half as many, for as long as that
costs no more than LOSS of the rate; twice as many, where that adds GAIN to it. What lies between
is noise, or not worth the wait.
"""

import time
from collections.abc import Callable

STAGE_SECONDS = 0.4
STAGE_ENDS = 40
"""A number is tried for so long, and until so many have ended, ..."""

LONGEST_STAGE_SECONDS = 3.0
"""... but no longer than this, where they are slow."""

HELD_SECONDS = 5.0
"""The number that was found is kept for so long before another is tried."""

LOSS = 0.1
GAIN = 0.25


class Knee:
    """`limit` is the number to go by now, at most `most`; the first one is a guess."""

    def __init__(
        self, most: int, *, first: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._clock = clock
        self.limit = self._kept = min(first or most, most)
        self._rate = 0.0
        self._settled = False
        self._upwards = False
        self._stage()

    def start(self) -> None:
        """There is more to do than can be done, from now on: go on from what was found before."""
        self.limit, self._settled = self._kept, False
        self._stage()

    def wanted(self) -> None:
        """One more came than are at work at a time: while few do, rates say nothing."""
        self._wanted += 1

    def ended(self) -> None:
        """One of those at work came to its end."""
        self._ended += 1
        lasted = self._clock() - self._began
        if lasted < (HELD_SECONDS if self._settled else STAGE_SECONDS):
            return
        if self._ended < STAGE_ENDS and lasted < LONGEST_STAGE_SECONDS:
            return
        if self._wanted > self._ended / 2:
            self._judge(self._ended / lasted)
        self._stage()

    def _stage(self) -> None:
        self._began, self._ended, self._wanted = self._clock(), 0, 0

    def _judge(self, rate: float) -> None:
        """Go by what came of the number that was tried."""
        if self.limit == self._kept:
            self._rate = rate
        elif self.limit < self._kept and rate >= (1 - LOSS) * self._rate:
            self._kept, self._rate = self.limit, max(rate, self._rate)
        elif self.limit > self._kept and rate >= (1 + GAIN) * self._rate:
            self._kept, self._rate = self.limit, rate
        else:
            self._settle()
            return
        self.limit = min(self._kept * 2, self._most) if self._upwards else max(self._kept // 2, 1)
        self._settled = False
        if self.limit == self._kept:
            self._settle()

    def _settle(self) -> None:
        """Keep what was found for a while; the other direction is next, as far as there is one."""
        self.limit, self._settled = self._kept, True
        self._upwards = self._kept < self._most and (self._kept == 1 or not self._upwards)
