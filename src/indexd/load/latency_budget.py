"""The latency budget of searches: a sliding window, and the ladder of degradations.

    p95 above the budget        a warning, once; a metric; a line of /readyz
    INDEXD_BUDGET_DEGRADE=on    also one rung up, and another while it stays so for STEP seconds
    p95 below EASY of it        for CALM seconds, or nothing to measure: one rung down

A rung makes searches that use an HNSW index look at fewer candidates and rows. It never makes them
answer fewer results, and touches nothing that is scanned exactly.
"""

import math
import time
from collections import deque
from collections.abc import Callable

import msgspec
import structlog

log = structlog.get_logger()

WINDOW = 30.0
"""Seconds that are looked at."""

FEWEST = 20
"""Searches from which a p95 means something."""

KEPT = 5_000
"""Searches that are kept; the newest, where more come in a window."""

STEP = 5.0
CALM = 30.0
EASY = 0.8


class Rung(msgspec.Struct, frozen=True):
    """`candidate_share` is the share of the candidates that an index search looks at,
    `scored_limit` the number of scored rows after which it ends.
    """

    candidate_share: float
    scored_limit: float


LADDER = (
    Rung(1.0, math.inf),
    Rung(0.6, 20_000),
    Rung(0.35, 8_000),
    Rung(0.2, 2_000),
)


class LatencyBudget:
    """`observe` each search, `judge` about every second."""

    def __init__(
        self, seconds: float, *, degrade: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self.rung = 0
        self.p95 = 0.0
        self.exceeded = False
        self.times_exceeded = 0
        self._degrade = degrade
        self._clock = clock
        self._searches: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._stepped_at = -math.inf
        self._uneasy_at = clock()

    def observe(self, seconds: float) -> None:
        self._searches.append((self._clock(), seconds))

    @property
    def present(self) -> Rung:
        return LADDER[self.rung]

    def judge(self) -> None:
        """Look at the window, say what changed, and step up or down where that is wanted."""
        now = self._clock()
        while self._searches and self._searches[0][0] < now - WINDOW:
            self._searches.popleft()
        durations = sorted(seconds for _, seconds in self._searches)
        enough = len(durations) >= FEWEST
        self.p95 = durations[math.ceil(0.95 * len(durations)) - 1] if durations else 0.0
        # Without any search for a while nothing is over the budget.
        known = enough or (not durations and now - self._stepped_at > WINDOW)
        if known and (self.p95 > self.seconds) != self.exceeded:
            self.exceeded = not self.exceeded
            self.times_exceeded += self.exceeded
            say = log.warning if self.exceeded else log.info
            say(
                "searches are over the budget" if self.exceeded else "searches are in the budget",
                p95_ms=round(self.p95 * 1000, 1),
                budget_ms=round(self.seconds * 1000, 1),
            )
        if durations and self.p95 > EASY * self.seconds:
            self._uneasy_at = now
        if not self._degrade:
            return
        if enough and self.exceeded and now - self._stepped_at >= STEP:
            self._step(min(self.rung + 1, len(LADDER) - 1), now)
        elif self.rung and now - max(self._uneasy_at, self._stepped_at) >= CALM:
            self._step(self.rung - 1, now)

    def _step(self, rung: int, now: float) -> None:
        if rung == self.rung:
            return
        log.warning(
            "searches look at less" if rung > self.rung else "searches look at more", rung=rung
        )
        self.rung = rung
        self._stepped_at = now
        # What was measured on another rung says nothing about this one.
        self._searches.clear()
