"""The latency budget of searches: a sliding window of latencies, and a ladder of degradations.

    p95 above the budget          one warning in the log, a metric, and a line of /readyz
    and INDEXD_BUDGET_DEGRADE=on  one rung up, and one more after each STEP seconds above it
    p95 below EASY of the budget  for CALM seconds, or no searches in that time: one rung down

On a higher rung, searches that use an HNSW index read fewer candidates and rows. They return as
many results as before. Exact scans are not changed.
"""

import math
import time
from collections import deque
from collections.abc import Callable

import msgspec
import structlog

log = structlog.get_logger()

WINDOW = 30.0
"""Seconds: length of the sliding window of which the p95 is computed."""

FEWEST = 20
"""Number of searches in the window below which the p95 is too noisy to act on."""

KEPT = 5_000
"""Number of searches kept at most; the oldest are dropped first. It bounds the memory."""

STEP = 5.0
"""Seconds between two steps up, so that the p95 can show the effect of the first one."""

CALM = 30.0
"""Seconds for which the p95 must stay below EASY before a step down."""

EASY = 0.8
"""Share of the budget. It is below 1, so that a step down does not exceed the budget at once."""


class Rung(msgspec.Struct, frozen=True):
    """`candidate_share` is the share of the usual candidates that an index search reads,
    `scored_limit` the number of scored rows after which it stops.
    """

    candidate_share: float
    scored_limit: float


LADDER = (
    Rung(1.0, math.inf),
    Rung(0.6, 20_000),
    Rung(0.35, 8_000),
    Rung(0.2, 2_000),
)
"""The rungs from full effort to the least."""


class LatencyBudget:
    """Call `observe` for each search, and `judge` about every second."""

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
        """Compute the p95 of the window, log a change, and step up or down if degrading is on."""
        now = self._clock()
        while self._searches and self._searches[0][0] < now - WINDOW:
            self._searches.popleft()
        durations = sorted(seconds for _, seconds in self._searches)
        enough = len(durations) >= FEWEST
        self.p95 = durations[math.ceil(0.95 * len(durations)) - 1] if durations else 0.0
        # After a window without any search the budget is not exceeded.
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
        # Latencies of another rung must not decide about this one.
        self._searches.clear()
