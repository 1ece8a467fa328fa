"""The next step of probe and sweep: pure decisions, from what the steps so far have found.

Done      no unseen chunk can be among the k best; or, under load, enough was scored
Sweep     score the chunks of some slices of time, newest first
Deepen    ask the index for more, which lowers the bound of unseen chunks
Rescan    score everything that matches: no bound, or nothing is cheaper
"""

import math
from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from indexd.store.namespaces import Facts
from indexd.store.search import costs
from indexd.store.search.age_histogram import Ages
from indexd.store.search.bounds import cutoff, half_life_bound, local_dimensionality
from indexd.store.search.costs import Tuning
from indexd.store.search.plan import ProbeSweep
from indexd.store.search.query import Query


class Range(msgspec.Struct, frozen=True):
    """Chunks of one half-life class, both ends included, in seconds since 1970."""

    half_life_class: int
    since: float
    until: float


class Done(msgspec.Struct, frozen=True):
    """`cut` says that the search ends early because of load."""

    cut: bool = False


class Rescan(msgspec.Struct, frozen=True):
    """Score all that matches."""


class Deepen(msgspec.Struct, frozen=True):
    """Ask the index for `rows`, reading up to `max_scan_tuples` of its rows for that."""

    rows: int
    max_scan_tuples: int | None


class Sweep(msgspec.Struct, frozen=True):
    """Score these slices, about `rows` chunks."""

    slices: tuple[Range, ...]
    rows: float


Step = Done | Rescan | Deepen | Sweep


class Job(msgspec.Struct, frozen=True):
    """A search by probe and sweep; `slack` is epsilon of the vector (docs/decay.md)."""

    query: Query
    facts: Facts
    plan: ProbeSweep
    tuning: Tuning
    ages: Ages
    slack: float


class Probe(msgspec.Struct, frozen=True):
    """What a probe answers, by columns of its statement.

    `half_cosines` are those of the similar candidates in halfvec, in the index's order. `newest`
    counts the newest candidates, `newest_since` is the oldest of their times. `classes` are the
    half-life classes of the namespace. The four lists are the keys and scores of the best.
    """

    half_cosines: list[float]
    newest: int
    newest_since: datetime | None
    classes: list[int]
    doc_ids: list[str]
    ordinals: list[int]
    chunk_ids: list[str]
    scores: list[float]

    def percentile(self, share: float) -> float | None:
        """The halfvec cosine of the candidate at this share of them, nearest first."""
        if not self.half_cosines:
            return None
        place = max(math.ceil(share * len(self.half_cosines)), 1)
        return sorted(self.half_cosines, reverse=True)[place - 1]

    def bound(self, tuning: Tuning) -> float | None:
        """Upper bound of the halfvec cosine of any chunk that the index did not give.

        That of the row given last, not the lowest: in relaxed order the rows of an earlier batch
        may lie lower, and rows not yet given above those. A nearer row bounds more surely, for of
        the farthest of its candidates an index misses most (docs/decay.md, Assumption A).
        """
        trusted = self.percentile(tuning.bound_percentile)
        return None if trusted is None else max(self.half_cosines[-1], trusted)

    @property
    def dimensionality(self) -> float:
        return local_dimensionality(sorted(self.half_cosines, reverse=True))


class Progress(msgspec.Struct, frozen=True):
    """What has been seen so far.

    `bound` is the upper bound of the halfvec cosine of unseen chunks, None where there is none.
    `fall` is how much the bound falls when twice as many rows are asked for. `asked` rows of the
    index were asked for, and it gave `similar`. `swept` has, by half-life class, the time from
    which on every chunk was seen. `kth` is the k-th best score.
    """

    bound: float | None
    fall: float
    asked: int
    similar: int
    max_scan_tuples: int | None
    swept: dict[int, float]
    slice_rows: int
    scored: int
    kth: float

    def deepened(self, probe: Probe, step: Deepen, tuning: Tuning) -> "Progress":
        """After the index was asked for more."""
        found = probe.bound(tuning)
        known = self.bound if self.bound is not None else math.inf
        return replace(
            self,
            bound=min(known, found) if found is not None else self.bound,
            fall=fall(probe, tuning),
            asked=step.rows,
            similar=len(probe.half_cosines),
            max_scan_tuples=step.max_scan_tuples,
        )

    def narrowed(self, step: Sweep) -> "Progress":
        """After these slices were swept: the next ones are twice as large."""
        return replace(
            self,
            swept=self.swept | {one.half_life_class: one.since for one in step.slices},
            slice_rows=2 * self.slice_rows,
        )


def fall(probe: Probe, tuning: Tuning) -> float:
    """How much the bound falls per doubling: it fell as much from half of the trusted rows."""
    halfway, bound = probe.percentile(tuning.bound_percentile / 2), probe.bound(tuning)
    return max((halfway or 0.0) - (bound or 0.0), 1e-4)


def begin(job: Job, probe: Probe, newest_since: datetime, max_scan_tuples: int | None) -> Progress:
    """After the first probe."""
    return Progress(
        bound=probe.bound(job.tuning),
        fall=fall(probe, job.tuning),
        asked=job.plan.similar_rows,
        similar=len(probe.half_cosines),
        max_scan_tuples=max_scan_tuples,
        swept=dict.fromkeys(probe.classes, newest_since.timestamp()),
        slice_rows=job.tuning.slice_rows,
        scored=0,
        kth=-math.inf,
    )


def for_high_dimensionality(job: Job, progress: Progress) -> Deepen | Rescan:
    """The first step where the neighbours of the query have a high dimensionality, of which an
    index misses many: it is asked for far more, or everything is scored.
    """
    facts, tuning = job.facts, job.tuning
    rows = max(tuning.high_lid_rows, facts.chunks * tuning.high_lid_share)
    rows = max(progress.asked, int(rows * job.plan.matching / facts.chunks))
    if _scan_cost(job) <= costs.SCAN_PREFERENCE * rows * _similar_row(job):
        return Rescan()
    return Deepen(rows, max(tuning.max_scan_tuples, facts.chunks))


def next_step(job: Job, progress: Progress) -> Step:
    """The cheapest step towards the proof."""
    tuning, kth = job.tuning, progress.kth
    least = job.query.min_similarity
    if progress.bound is not None and least is not None and progress.bound + job.slack < least:
        return Done()  # no unseen chunk is similar enough
    if progress.bound is None or kth <= 0:
        return Rescan()
    upper = max(progress.bound + job.slack, 0.0)
    ranges = _open(job, progress, upper) if kth <= upper else []
    if not ranges:
        return Done()
    if progress.scored >= tuning.scored_limit:
        return Done(cut=True)
    sweeping = _chunks(ranges, job.ages) * tuning.swept_row + tuning.statement
    deepening, deepen = _deepen(job, progress, upper, 0.9 * sweeping)
    if min(sweeping, deepening) > _scan_cost(job):
        return Done(cut=True) if job.plan.matching > tuning.scored_limit else Rescan()
    if deepen is not None:
        return deepen
    slices = tuple(_newest_part(one, job.ages, progress.slice_rows) for one in ranges)
    return Sweep(slices, _chunks(slices, job.ages))


def _deepen(
    job: Job, progress: Progress, upper: float, limit: float
) -> tuple[float, Deepen | None]:
    """The cheapest larger request to the index and its cost in microseconds, if below `limit`."""
    tuning = job.tuning
    best, chosen, rows = limit, None, progress.asked
    while progress.similar >= 0.9 * progress.asked and rows < tuning.ef_max:
        rows = min(int(rows * 1.5), tuning.ef_max)
        below = upper - progress.fall * math.log2(rows / progress.asked)
        left = _open(job, progress, below) if below >= progress.kth else []
        cost = (
            rows * _similar_row(job)
            + _chunks(left, job.ages) * tuning.swept_row
            + 2 * tuning.statement
        )
        if cost < best:
            best, chosen = cost, Deepen(rows, progress.max_scan_tuples)
    return (best, chosen) if chosen else (math.inf, None)


def _open(job: Job, progress: Progress, upper: float) -> list[Range]:
    """Where an unseen chunk of a cosine up to `upper` may still reach kth, by half-life class."""
    at, policy = job.query.at.timestamp(), job.facts.half_life_seconds
    return [
        Range(one, since, until)
        for one, until in progress.swept.items()
        if (since := cutoff(at, half_life_bound(one, policy), upper, progress.kth)) < until
    ]


def _chunks(ranges: Sequence[Range], ages: Ages) -> float:
    """About how many chunks lie in the ranges."""
    return sum(
        max(one.count_before(r.until) - one.count_before(r.since), 0.0)
        for r in ranges
        if (one := ages.get(r.half_life_class))
    )


def _newest_part(one: Range, ages: Ages, rows: int) -> Range:
    """About `rows` of the newest chunks of a range; the whole where little more would be left."""
    if _chunks([one], ages) <= 1.3 * rows:
        return one
    since = ages[one.half_life_class].start_of(rows, until=one.until)
    return Range(one.half_life_class, max(since, one.since), one.until)


def _scan_cost(job: Job) -> float:
    return costs.scan(job.plan.matching, job.facts, job.query.filters, job.tuning)


def _similar_row(job: Job) -> float:
    return costs.similar_row(job.plan.matching, job.facts, job.query.filters, job.tuning)
