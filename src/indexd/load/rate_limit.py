"""Limits how many requests each caller may make per minute, counted in this process."""

import time
from collections.abc import Callable

WINDOW = 60.0
"""Seconds for which the limit is given. A caller may make all of a window's requests at once, and
then one every WINDOW / limit seconds."""

KEPT = 10_000
"""Number of callers remembered at most, which bounds the memory. Above it, callers without a recent
request are forgotten; if all have one, all are forgotten."""


class RateLimit:
    """The generic cell rate algorithm (ITU-T I.371), which keeps one number per caller."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = WINDOW / per_minute
        self._clock = clock
        self._due: dict[str, float] = {}

    def seconds_until_allowed(self, caller: str) -> float:
        """Seconds until the caller may make a request; 0 if it may do so now."""
        due = self._due.get(caller, 0.0)
        return max(0.0, due + self._interval - WINDOW - self._clock())

    def count(self, caller: str) -> None:
        """Count one request of the caller, whether it is allowed or not."""
        now = self._clock()
        if len(self._due) >= KEPT and caller not in self._due:
            self._due = {who: due for who, due in self._due.items() if due > now}
            if len(self._due) >= KEPT:
                self._due.clear()
        self._due[caller] = max(self._due.get(caller, 0.0), now) + self._interval

    def try_acquire(self, caller: str) -> float:
        """Count a request if it is allowed. Returns the seconds to wait; 0 if it is allowed."""
        left = self.seconds_until_allowed(caller)
        if left == 0.0:
            self.count(caller)
        return left
