"""Turns at the database: so many at a time, in order, and what happens when more want one.

A burst may wait: `length` requests, each up to `seconds`. So may any number of clients that is not
larger, however long they go on. A queue that overflows, or a wait that takes longer, is overload,
where a long queue helps nobody and only adds its delay to every request: from then on only a few
may wait, and all others are refused at once, until none was refused for CALM seconds, or for AGAIN
seconds at most, when the long queue is tried once more. How long a request takes once it has its
turn plays no part: a slow search is never refused for being slow.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from indexd.errors import Overloaded

CALM = 1.0
"""Seconds without a refusal after which a burst may wait again."""

AGAIN = 30.0
"""Seconds after which it may in any case: as many clients as fit may be all that is left."""


def _ignore(_: object) -> None:
    pass


class Admission:
    """`waited` hears how many seconds each request waited, `refused` why one was: queue, wait."""

    def __init__(
        self,
        size: int,
        *,
        length: int,
        seconds: float,
        waited: Callable[[float], None] = _ignore,
        refused: Callable[[str], None] = _ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.busy = 0
        self.shedding = False
        self._size = size
        self._length = length
        self._seconds = seconds
        self._waited = waited
        self._refused = refused
        self._clock = clock
        self._queue: deque[asyncio.Future[None]] = deque()
        self._shedding_since = 0.0
        self._refused_at = 0.0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def refuse_early(self) -> bool:
        """Whether one more would be refused now; then it is counted as if it had asked.

        Asked before a request is read, so that refusing costs next to nothing.
        """
        if self.busy < self._size or len(self._queue) < self._limit(self._clock()):
            return False
        self._note("queue")
        return True

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises Overloaded if it can't be had in time."""
        if self.busy < self._size:
            self.busy += 1
            self._waited(0.0)
        else:
            await self._wait()
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self) -> None:
        began = self._clock()
        if len(self._queue) >= self._limit(began):
            self._refuse("queue")
        ours = asyncio.get_running_loop().create_future()
        self._queue.append(ours)
        try:
            async with asyncio.timeout(self._seconds):
                await ours
        except (TimeoutError, asyncio.CancelledError) as left:
            with suppress(ValueError):
                self._queue.remove(ours)
            if not ours.cancelled():
                self._pass_on()  # the turn came at the same moment
            if isinstance(left, TimeoutError):
                self._refuse("wait")
            raise
        self._waited(self._clock() - began)

    def _limit(self, now: float) -> int:
        """How many may wait."""
        if now - self._refused_at > CALM or now - self._shedding_since > AGAIN:
            self.shedding = False
        return max(1, self._size // 4) if self.shedding else self._length

    def _refuse(self, why: str) -> None:
        self._note(why)
        raise Overloaded

    def _note(self, why: str) -> None:
        self._refused_at = self._clock()
        if not self.shedding:
            self.shedding, self._shedding_since = True, self._refused_at
        self._refused(why)

    def _pass_on(self) -> None:
        while self._queue:
            first = self._queue.popleft()
            if not first.done():
                first.set_result(None)
                return
        self.busy -= 1
