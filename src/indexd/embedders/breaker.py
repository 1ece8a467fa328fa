"""The circuit breaker: whoever needs a dead embedder learns it at once, not after a timeout."""

import asyncio
import math
import time

from indexd.errors import EmbedderUnavailable

FAILURES = 3
"""So many attempts in a row that failed open it; one that is lasting opens it alone."""

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 5.0


class Breaker:
    """Closed while the embedder works. It is open as long as `reason` is not None.

    No request is ever let through to see whether the embedder is back: that would cost it a
    timeout. One task looks after it instead, after `delay` seconds, twice as long each time.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.opened = asyncio.Event()
        self.delay = FIRST_DELAY_SECONDS
        self._failures = 0
        self._next_look = 0.0

    def check(self) -> None:
        """Raises EmbedderUnavailable while open, with the time until the next look."""
        if self.reason is not None:
            wait = max(1, math.ceil(self._next_look - time.monotonic()))
            raise EmbedderUnavailable(
                f"the embedder is down: {self.reason}", retry_after_seconds=wait
            )

    def failed(self, reason: str, *, lasting: bool) -> None:
        self._failures += 1
        if lasting or self._failures >= FAILURES:
            if self.reason is None:
                self.delay = FIRST_DELAY_SECONDS
                self._next_look = time.monotonic() + self.delay
            self.reason = reason
            self.opened.set()

    def still_down(self, reason: str) -> None:
        """Someone looked: the next look is later."""
        if self.reason is not None:
            self.delay = min(2 * self.delay, LONGEST_DELAY_SECONDS)
        self.reason = reason
        self._next_look = time.monotonic() + self.delay
        self.opened.set()

    def works(self) -> None:
        self._failures = 0
        self.reason = None
        self.delay = FIRST_DELAY_SECONDS
        self.opened.clear()
