"""How often something may happen per minute, for each of many callers, in this process."""

import time
from collections.abc import Callable

WINDOW = 60.0
"""Seconds. A whole minute's worth may come at once; then one every WINDOW / limit seconds."""

KEPT = 10_000
"""Callers remembered; those that have been quiet for a minute are forgotten first."""


class RateLimit:
    """The generic cell rate algorithm (ITU-T I.371): one number per caller."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = WINDOW / per_minute
        self._clock = clock
        self._due: dict[str, float] = {}

    def seconds_until_allowed(self, caller: str) -> float:
        """Seconds until the caller may come again; 0 if now."""
        due = self._due.get(caller, 0.0)
        return max(0.0, due + self._interval - WINDOW - self._clock())

    def count(self, caller: str) -> None:
        now = self._clock()
        if len(self._due) >= KEPT and caller not in self._due:
            self._due = {who: due for who, due in self._due.items() if due > now}
            if len(self._due) >= KEPT:
                self._due.clear()
        self._due[caller] = max(self._due.get(caller, 0.0), now) + self._interval

    def try_acquire(self, caller: str) -> float:
        """As `seconds_until_allowed`, and counted where it is 0."""
        left = self.seconds_until_allowed(caller)
        if left == 0.0:
            self.count(caller)
        return left
