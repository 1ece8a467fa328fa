"""The circuit breaker: while the embedder is down, requests fail at once instead of timing out."""

import asyncio
import math
import time

from indexd.errors import EmbedderUnavailable

FAILURES = 3
"""Number of consecutive failures that open the breaker. One lasting failure suffices."""

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 5.0
"""Seconds between two checks whether the embedder is back. They double after each failed check."""


class Breaker:
    """Closed while the embedder works; open while `reason` is not None.

    An open breaker lets no request through, because a request that tests a dead embedder would wait
    for a timeout. A background task checks the embedder instead, after `delay` seconds.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.opened = asyncio.Event()
        self.delay = FIRST_DELAY_SECONDS
        self._failures = 0
        self._next_look = 0.0

    def check(self) -> None:
        """Raise EmbedderUnavailable if it is open, with the seconds until the next check."""
        if self.reason is not None:
            wait = max(1, math.ceil(self._next_look - time.monotonic()))
            raise EmbedderUnavailable(
                f"the embedder is down: {self.reason}", retry_after_seconds=wait
            )

    def failed(self, reason: str, *, lasting: bool) -> None:
        """Count a failure. A `lasting` one opens the breaker at once."""
        self._failures += 1
        if lasting or self._failures >= FAILURES:
            if self.reason is None:
                self.delay = FIRST_DELAY_SECONDS
                self._next_look = time.monotonic() + self.delay
            self.reason = reason
            self.opened.set()

    def still_down(self, reason: str) -> None:
        """Note that a check failed, open the breaker, and double the delay to the next check."""
        if self.reason is not None:
            self.delay = min(2 * self.delay, LONGEST_DELAY_SECONDS)
        self.reason = reason
        self._next_look = time.monotonic() + self.delay
        self.opened.set()

    def works(self) -> None:
        """Note that the embedder answered, and close the breaker."""
        self._failures = 0
        self.reason = None
        self.delay = FIRST_DELAY_SECONDS
        self.opened.clear()
