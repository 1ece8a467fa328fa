"""Turns at the database: so many at a time, in order, and what happens when more want one.

A burst may wait: `length` requests, each up to `seconds`. So may any number of clients that is not
larger, however long they go on. As long as some wait, not all turns are given: that many at work
would slow each other down, and this process with them.

A queue that overflows, or a wait that takes longer, is overload, where a long queue helps nobody
and only adds its delay to every request. From then on nobody waits, as many work at a time as can
without slowing each other down (`indexd.knee`), and all others are refused at once. That is over
once none was refused for a second. Where fewer than half were, which may come of nobody waiting,
it is over on probation: a short queue may form, and if that overflows it was not. In any case the
long queue is tried again after AGAIN seconds, for as many clients as fit may be all that is left,
and after twice as many each time in vain. How long a request takes once it has its turn
plays no part in whether it is refused: a slow search is never refused for being slow. One that
takes LONG does not count among the few that work then, so that quick ones need not wait for it.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from indexd.errors import Overloaded
from indexd.knee import Knee

CALM = 1.0
"""Seconds after which an overload, or a crowd, is looked at anew."""

PROBATION = 3.0
"""Seconds in which only as many may wait as may work."""

AGAIN = 30.0
AGAIN_AT_MOST = 480.0
"""Seconds of an overload after which the long queue is tried again."""

LONG = 0.25
"""Seconds at work after which a request takes none of the few turns there are while others wait."""


def _ignore(_: object) -> None:
    pass


class Admission:
    """`waited` hears how many seconds each request waited, `refused` why one was: queue, wait.

    `cores` is a guess at those of the database, by which the first few turns go.
    """

    def __init__(
        self,
        size: int,
        *,
        length: int,
        seconds: float,
        cores: int | None = None,
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
        self._knee = Knee(size, first=cores, clock=clock)
        self._long = 0
        self._again = AGAIN
        self._shedding_since = 0.0
        self._on_probation_until = 0.0
        self._looked_at = 0.0
        self._came = self._refused_since = 0
        self._refused_at = 0.0
        self._wanted_at = -math.inf

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def crowded(self) -> bool:
        """Whether some wait, or had to a moment ago."""
        return bool(self._queue) or self._clock() - self._wanted_at <= CALM

    def refuse_early(self) -> bool:
        """Whether one more would be refused now; then it is counted as if it had asked.

        Asked before a request is read, so that refusing costs next to nothing.
        """
        self._look_up()
        if self._has_turn or len(self._queue) < self._places:
            return False
        self._came += 1
        self._note("queue")
        return True

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Raises Overloaded if it can't be had in time."""
        self._look_up()
        self._came += 1
        if self._has_turn:
            self.busy += 1
            self._waited(0.0)
        else:
            await self._wait()
        long, began = False, self._clock()

        def take_long() -> None:
            nonlocal long
            long = True
            self._long += 1
            self._let_in()

        timer = asyncio.get_running_loop().call_later(LONG, take_long)
        try:
            yield
        finally:
            timer.cancel()
            self._long -= long
            if self.shedding:
                self._knee.ended(self._clock() - began)
            self._pass_on()

    @property
    def _has_turn(self) -> bool:
        """Whether one more may work now."""
        return self.busy < self._size and self.busy - self._long < self._turns

    @property
    def _turns(self) -> int:
        if self.shedding:
            return self._knee.limit
        # Two for each core, and one: so that none idles while an answer is on its way.
        return min(2 * self._knee.kept + 1, self._size) if self.crowded else self._size

    @property
    def _places(self) -> int:
        """How many may wait; those who had a turn before there were fewer, as well."""
        if self.shedding:
            return 0
        if self._clock() < self._on_probation_until:
            return min(self._size, self._length)
        return self._length + self._size - self._turns

    async def _wait(self) -> None:
        began = self._want()
        if len(self._queue) >= self._places:
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

    def _pass_on(self) -> None:
        """Give a turn back, to whoever is next; to several after a time of fewer turns."""
        self.busy -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._queue and self._has_turn:
            first = self._queue.popleft()
            if not first.done():
                self.busy += 1
                first.set_result(None)

    def _refuse(self, why: str) -> None:
        self._note(why)
        raise Overloaded

    def _note(self, why: str) -> None:
        """One is refused: that is overload, if it was not so before."""
        now = self._want()
        if not self.shedding:
            if now - self._refused_at > AGAIN:
                self._again = AGAIN
            self.shedding, self._shedding_since = True, now
            self._looked_at, self._came, self._refused_since = now, 0, 0
            self._knee.start()
        self._refused_at = now
        self._refused_since += 1
        self._refused(why)

    def _want(self) -> float:
        """One came that can't have a turn at once; gives the time."""
        self._knee.wanted()
        self._wanted_at = self._clock()
        return self._wanted_at

    def _look_up(self) -> None:
        """Whether it is over."""
        if not self.shedding:
            return
        now = self._clock()
        if now - self._refused_at > CALM:
            self.shedding = False
        elif now - self._shedding_since > self._again:
            self.shedding = False
            self._again = min(2 * self._again, AGAIN_AT_MOST)
        elif now - self._looked_at > CALM:
            if self._refused_since < self._came / 2:
                self.shedding, self._on_probation_until = False, now + PROBATION
            self._looked_at, self._came, self._refused_since = now, 0, 0
