"""How many requests work at a time in an overload."""

import numpy as np
import pytest

from indexd.load.concurrency_limit import SOLO_SECONDS, ConcurrencyLimit


class Database:
    """Requests share the cores. One that shares no core takes `seconds`."""

    def __init__(self, cores: float, seconds: float = 0.01, spread: float = 0.3) -> None:
        self.now = 0.0
        self.cores = cores
        self.seconds = seconds
        self.spread = spread
        self.rng = np.random.default_rng(1)

    def clock(self) -> float:
        return self.now

    def work(self, limit: ConcurrencyLimit, seconds: float, wanted: int = 2) -> list[int]:
        """Always as many at work as may be, and so many more that want to for each that ends.

        The numbers that were kept meanwhile.
        """
        until, kept = self.now + seconds, []
        while self.now < until:
            took = self.seconds * max(1.0, limit.limit / self.cores)
            took *= self.rng.lognormal(0, self.spread)
            self.now += took / limit.limit
            for _ in range(wanted):
                limit.note_excess()
            limit.note_latency(took)
            kept.append(limit.settled)
        return kept


def overloaded(cores: float, *, first: int | None = None) -> tuple[Database, ConcurrencyLimit]:
    database = Database(cores)
    limit = ConcurrencyLimit(16, first=first, clock=database.clock)
    limit.start()
    return database, limit


def usual(kept: list[int]) -> int:
    return max(kept, key=kept.count)


@pytest.mark.slow
def test_about_as_many_as_there_are_cores_are_found_from_above_and_from_below() -> None:
    for cores in (1, 2, 4, 8):
        for first in (1, 16):
            database, limit = overloaded(cores, first=first)
            database.work(limit, 10)
            assert cores <= usual(database.work(limit, 20)) <= cores + 2


@pytest.mark.slow
def test_a_change_of_what_the_database_can_do_is_followed() -> None:
    database, limit = overloaded(cores=8)
    database.work(limit, 20)
    for cores in (2, 8):
        database.cores = cores
        database.work(limit, 2 * SOLO_SECONDS)
        assert cores <= usual(database.work(limit, 10)) <= cores + 2


def test_slow_requests_are_not_taken_for_too_many() -> None:
    database, limit = overloaded(cores=4)
    database.work(limit, 20)
    database.seconds = 0.5
    database.work(limit, 4 * SOLO_SECONDS)
    assert 4 <= usual(database.work(limit, 30)) <= 6


def test_what_was_found_is_where_the_next_overload_starts() -> None:
    database, limit = overloaded(cores=2)
    database.work(limit, 10)
    found = limit.settled
    database.now += 3600
    limit.start()
    assert (limit.settled, limit.limit) == (found, 1)


def test_nothing_is_concluded_while_few_want_to_work() -> None:
    database, limit = overloaded(cores=2)
    assert set(database.work(limit, 60, wanted=0)) == {16}


def test_more_than_there_are_turns_are_never_let_in() -> None:
    database = Database(cores=100)
    limit = ConcurrencyLimit(5, first=9, clock=database.clock)
    limit.start()
    assert max(database.work(limit, 60)) == 5
