"""How many requests are let work at a time while others wait."""

from indexd.knee import HELD_SECONDS, Knee


class Database:
    """So many cores; requests of so many seconds each share them."""

    def __init__(self, cores: float, seconds: float = 0.01) -> None:
        self.now = 0.0
        self.cores = cores
        self.seconds = seconds

    def clock(self) -> float:
        return self.now

    def work(self, knee: Knee, seconds: float, wanted: int = 2) -> None:
        """Always as many at work as may be, and so many more that want to for each that ends."""
        until = self.now + seconds
        while self.now < until:
            self.now += self.seconds / min(knee.limit, self.cores)
            for _ in range(wanted):
                knee.wanted()
            knee.ended()


def test_as_many_as_there_are_cores_are_found_from_above_and_from_below() -> None:
    for first in (1, 16):
        database = Database(cores=4)
        knee = Knee(16, first=first, clock=database.clock)
        knee.start()
        database.work(knee, 15)
        settled = []
        for _ in range(20):
            database.work(knee, 1)
            settled.append(knee.limit)
        assert max(settled, key=settled.count) == 4


def test_a_change_of_what_the_database_can_do_is_followed() -> None:
    database = Database(cores=8)
    knee = Knee(16, clock=database.clock)
    knee.start()
    database.work(knee, HELD_SECONDS)
    assert knee.limit == 8
    database.cores = 2
    database.work(knee, 4 * HELD_SECONDS)
    assert knee.limit == 2
    database.cores = 8
    database.work(knee, 6 * HELD_SECONDS)
    assert knee.limit in (8, 16)


def test_what_was_found_is_where_the_next_crowd_starts() -> None:
    database = Database(cores=2)
    knee = Knee(16, clock=database.clock)
    knee.start()
    database.work(knee, 4)
    database.now += 3600
    knee.start()
    assert knee.limit == 2


def test_nothing_is_concluded_from_the_rate_while_few_want_to_work() -> None:
    database = Database(cores=2)
    knee = Knee(16, clock=database.clock)
    knee.start()
    database.work(knee, 60, wanted=0)
    assert knee.limit == 16


def test_slow_requests_are_judged_too() -> None:
    database = Database(cores=4, seconds=2)
    knee = Knee(16, clock=database.clock)
    knee.start()
    database.work(knee, 30)
    assert knee.limit in (4, 8)


def test_more_than_there_are_turns_are_never_let_in() -> None:
    database = Database(cores=100)
    knee = Knee(5, first=9, clock=database.clock)
    knee.start()
    for _ in range(60):
        database.work(knee, 1)
        assert 1 <= knee.limit <= 5
