"""Admission to the database: a limited number of requests work, the others wait or are refused.

    normal      a queue may wait; every permit may be in use
    shedding    no request waits; the adaptive concurrency limit bounds the requests at work
    probation   a short queue may wait, for PROBATION seconds

    normal    -> shedding    the queue overflows, or a request has waited too long
    shedding  -> normal      CALM seconds without a refusal
    shedding  -> probation   fewer than half of the requests of the last CALM seconds were refused
    shedding  -> normal      RETRY seconds of overload are over; the time doubles with each retry
    probation -> shedding    the short queue overflows
    probation -> normal      PROBATION seconds are over

A closed group of at most `queue_length` clients may wait indefinitely: its queue has a constant
length and never overflows. Under overload a long queue only adds its delay to every request. The
time that a request works is not a criterion: a slow search is never refused for being slow.

An operator may prefer throughput to latency. Then shedding keeps a short queue, and enough permits
to keep the database busy.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Literal

import msgspec

from indexd.errors import Overloaded
from indexd.load.concurrency_limit import ConcurrencyLimit

Preference = Literal["latency", "throughput"]

CALM = 1.0
"""Seconds: the interval at which shedding is reconsidered, and the time for which the number of
permits stays reduced after the last request had to wait."""

PROBATION = 3.0
"""Seconds: the length of the state `probation`, in which one request per permit may wait."""

RETRY = 30.0
RETRY_AT_MOST = 480.0
"""Seconds of overload after which the long queue is allowed again, and the upper bound of these
seconds. They double whenever the queue overflows again. Only a retry can find out whether the
remaining clients are a closed group that fits into the queue."""

LONG = 0.25
"""Seconds: requests that work longer than this do not count against the reduced number of permits,
so that quick requests need not wait for them."""


class State(StrEnum):
    NORMAL = "normal"
    SHEDDING = "shedding"
    PROBATION = "probation"


class Limits(msgspec.Struct, frozen=True):
    """`permits` requests may work at once; `queue_length` may wait, each up to `queue_seconds`.

    `cores` is the assumed number of CPU cores of the database, None if the database is on another
    machine. It is the first concurrency limit.
    """

    permits: int
    queue_length: int
    queue_seconds: float
    cores: int | None = None
    prefer: Preference = "latency"


class Change(msgspec.Struct, frozen=True):
    """An overload began, or ended in `state`.

    `seconds` is its duration, `refused` the number of requests refused during it, `concurrency` the
    concurrency limit at its end.
    """

    state: State
    busy: int
    waiting: int
    seconds: float = 0.0
    refused: int = 0
    concurrency: int = 0


def _ignore(_: object) -> None:
    pass


class Admission:
    """`waited` is called with the seconds that a request waited, `refused` with the reason of a
    refusal (queue or wait), `changed` when an overload begins or ends.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        waited: Callable[[float], None] = _ignore,
        refused: Callable[[str], None] = _ignore,
        changed: Callable[[Change], None] = _ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.busy = 0
        self._limits = limits
        self._waited = waited
        self._refused = refused
        self._changed = changed
        self._clock = clock
        self._queue: deque[asyncio.Future[None]] = deque()
        self._limit = ConcurrencyLimit(limits.permits, first=limits.cores, clock=clock)
        self._long = 0
        self._shedding = False
        self._shedding_since = 0.0
        self._probation_until = 0.0
        self._retry_seconds = RETRY
        self._judged_at = 0.0
        self._came = self._refused_lately = self._refused_in_all = 0
        self._refused_at = 0.0
        self._contended_at = -math.inf

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def state(self) -> State:
        if self._shedding:
            return State.SHEDDING
        return State.PROBATION if self._clock() < self._probation_until else State.NORMAL

    @property
    def contended(self) -> bool:
        """Whether requests wait now, or had to wait in the last CALM seconds."""
        return bool(self._queue) or self._clock() - self._contended_at <= CALM

    def refuse_early(self) -> bool:
        """Whether one more request would be refused now. If so, it is counted as refused.

        Called before the body of a request is read, so that a refusal is cheap.
        """
        self._judge()
        if self._has_permit or len(self._queue) < self._queue_room:
            return False
        self._came += 1
        self._note_refusal("queue")
        return True

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Hold a permit while this context is open. Raises Overloaded if none is free in time."""
        self._judge()
        self._came += 1
        if self._has_permit:
            self.busy += 1
            self._waited(0.0)
        else:
            await self._wait()
        long, began = False, self._clock()

        def become_long() -> None:
            nonlocal long
            long = True
            self._long += 1
            self._let_in()

        timer = asyncio.get_running_loop().call_later(LONG, become_long)
        try:
            yield
        finally:
            timer.cancel()
            self._long -= long
            if self._shedding:
                self._limit.note_latency(self._clock() - began)
            self._release()

    @property
    def _has_permit(self) -> bool:
        """Whether one more request may work now."""
        return self.busy < self._limits.permits and self.busy - self._long < self._permits

    @property
    def _permits(self) -> int:
        """Number of requests that may work at once, without those longer than LONG seconds."""
        if self._shedding and self._limits.prefer == "latency":
            return self._limit.limit
        if not (self._shedding or self.contended):
            return self._limits.permits
        # Two per core and one more, so that no core idles while an answer is being sent.
        return min(2 * self._limit.settled + 1, self._limits.permits)

    @property
    def _queue_room(self) -> int:
        """Number of requests that may wait in the present state."""
        match self.state:
            case State.SHEDDING:
                return 0 if self._limits.prefer == "latency" else self._permits
            case State.PROBATION:
                return min(self._limits.permits, self._limits.queue_length)
            case State.NORMAL:
                # A reduction of the permits must not cause refusals, so it lengthens the queue.
                return self._limits.queue_length + self._limits.permits - self._permits

    async def _wait(self) -> None:
        began = self._note_contention()
        if len(self._queue) >= self._queue_room:
            self._refuse("queue")
        ours = asyncio.get_running_loop().create_future()
        self._queue.append(ours)
        try:
            async with asyncio.timeout(self._limits.queue_seconds):
                await ours
        except (TimeoutError, asyncio.CancelledError) as left:
            with suppress(ValueError):
                self._queue.remove(ours)
            if not ours.cancelled():
                self._release()  # the permit was granted at the moment of the timeout
            if isinstance(left, TimeoutError):
                self._refuse("wait")
            raise
        self._waited(self._clock() - began)

    def _release(self) -> None:
        """Return a permit, and admit waiting requests as long as permits are free."""
        self.busy -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._queue and self._has_permit:
            first = self._queue.popleft()
            if not first.done():
                self.busy += 1
                first.set_result(None)

    def _refuse(self, why: str) -> None:
        self._note_refusal(why)
        raise Overloaded

    def _note_refusal(self, why: str) -> None:
        """Count a refusal. The first one begins an overload."""
        now = self._note_contention()
        if not self._shedding:
            self._begin_shedding(now)
        self._refused_at = now
        self._refused_lately += 1
        self._refused_in_all += 1
        self._refused(why)

    def _note_contention(self) -> float:
        """Record that a request arrived while no permit was free. Returns the time."""
        self._limit.note_excess()
        self._contended_at = self._clock()
        return self._contended_at

    def _begin_shedding(self, now: float) -> None:
        if now - self._refused_at > RETRY:
            self._retry_seconds = RETRY
        self._shedding, self._shedding_since = True, now
        self._refused_in_all = 0
        self._begin_interval(now)
        self._limit.start()
        self._changed(Change(State.SHEDDING, self.busy, len(self._queue)))

    def _end_shedding(self, now: float) -> None:
        self._shedding = False
        self._changed(
            Change(
                self.state,
                self.busy,
                len(self._queue),
                seconds=now - self._shedding_since,
                refused=self._refused_in_all,
                concurrency=self._limit.settled,
            )
        )

    def _begin_interval(self, now: float) -> None:
        self._judged_at, self._came, self._refused_lately = now, 0, 0

    def _judge(self) -> None:
        """End the overload if a transition of the table at the top of this module applies."""
        if not self._shedding:
            return
        now = self._clock()
        if now - self._refused_at > CALM:
            self._end_shedding(now)
        elif now - self._shedding_since > self._retry_seconds:
            self._end_shedding(now)
            self._retry_seconds = min(2 * self._retry_seconds, RETRY_AT_MOST)
        elif now - self._judged_at > CALM:
            if self._refused_lately < self._came / 2:
                self._probation_until = now + PROBATION
                self._end_shedding(now)
            self._begin_interval(now)
