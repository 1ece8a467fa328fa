"""The true k best under decay, at the speed of an HNSW index: probe and sweep.

    probe   the most similar chunks (HNSW) and the newest ones (btree), scored exactly
    bound   an unseen chunk has a cosine of at most U, that of a far probed one plus epsilon; with
            kth the k-th best score so far, an unseen chunk older than
            at - half_life * log2(U / kth) can't reach it
    sweep   the chunks younger than that, newest first, in slices: each slice raises kth, which
            brings the cutoff nearer
    deepen  ask the index for more instead, where the estimate says that it is cheaper
    rescan  score everything, where there is no bound or nothing is cheaper

docs/decay.md has the proof. What rests on the index's recall is chunks it missed that are older
than the cutoff; everything else is exact. All statements run in the caller's snapshot. Which step
comes next is decided in steering.py.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec.structs import replace

from indexd.clock import FIRST
from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.search import statements, steering
from indexd.store.search.steering import Deepen, Done, Job, Probe, Range, Rescan, Sweep


class Scored(msgspec.Struct, frozen=True):
    """A row of a sweep or a rescan."""

    doc_id: str
    ordinal: int
    chunk_id: str
    score: float


class ScoredKey(msgspec.Struct, frozen=True, order=True):
    """A chunk that was scored; the order is that of an answer."""

    minus_score: float
    doc_id: str
    chunk_id: str
    ordinal: int


class Best:
    """The k best so far, each chunk once, and how many rows were scored to find them.

    With `per_document` each document has one place, that of its best chunk.
    """

    def __init__(self, k: int, *, per_document: bool = False) -> None:
        self.k = k
        self.per_document = per_document
        self.scored = 0
        self.cut = False
        self._keys: dict[tuple[str, int], ScoredKey] = {}

    def take(self, scored: Iterable[Scored]) -> None:
        for one in scored:
            key = ScoredKey(-one.score, one.doc_id, one.chunk_id, one.ordinal)
            place = self._place(key)
            self._keys[place] = min(key, self._keys.get(place, key))
        if len(self._keys) > self.k:
            self._keys = {self._place(key): key for key in self.keys()}

    def keys(self) -> list[ScoredKey]:
        return sorted(self._keys.values())[: self.k]

    @property
    def kth(self) -> float:
        """The k-th best score; minus infinity while there are fewer."""
        keys = self.keys()
        return -keys[-1].minus_score if len(keys) == self.k else -math.inf

    def _place(self, key: ScoredKey) -> tuple[str, int]:
        return key.doc_id, 0 if self.per_document else key.ordinal


async def best_keys(connection: Connection, job: Job) -> Best:
    """The keys of the k best of an indexed namespace, and how many rows were scored for them."""
    best = Best(job.query.k, per_document=job.query.per_document)
    newest_rows = job.plan.newest_rows
    first = Deepen(job.plan.similar_rows, job.tuning.max_scan_tuples if job.query.filters else None)
    probe = await _probe(connection, job, best, first, newest_rows)
    if probe.newest < newest_rows or probe.newest_since is None:
        return best  # the newest candidates are all that match
    progress = steering.begin(job, probe, probe.newest_since, first.max_scan_tuples)
    step: steering.Step
    if job.tuning.is_high(probe.dimensionality):
        progress = replace(progress, bound=None)  # the index missed too much for one
        step = steering.for_high_dimensionality(job, progress)
    else:
        step = steering.next_step(job, replace(progress, scored=best.scored, kth=best.kth))
    while True:
        match step:
            case Done(cut):
                best.cut = cut
                return best
            case Rescan():
                await _rescan(connection, job, best)
                return best
            case Deepen():
                probe = await _probe(connection, job, best, step, newest_rows=0)
                progress = progress.deepened(probe, step, job.tuning)
            case Sweep():
                await _sweep(connection, job, best, step)
                progress = progress.narrowed(step)
        step = steering.next_step(job, replace(progress, scored=best.scored, kth=best.kth))


async def _probe(
    connection: Connection, job: Job, best: Best, ask: Deepen, newest_rows: int
) -> Probe:
    query, facts = job.query, job.facts
    ef = min(job.plan.ef if newest_rows else ask.rows, job.tuning.ef_max)
    [probe] = await rows.prepared(
        connection,
        Probe,
        statements.probe(
            facts.vectors_dimension,
            query.filters,
            per_document=query.per_document,
            similar=query.min_similarity is not None,
        ),
        statements.values_of(query, facts, similar_rows=ask.rows, newest_rows=newest_rows),
        statements.index_settings(ef, ask.max_scan_tuples),
    )
    keys = zip(probe.doc_ids, probe.ordinals, probe.chunk_ids, probe.scores, strict=True)
    best.take(Scored(*key) for key in keys)
    best.scored += len(probe.half_cosines) + probe.newest
    return probe


async def _sweep(connection: Connection, job: Job, best: Best, step: Sweep) -> None:
    best.scored += int(step.rows)
    best.take(
        await rows.prepared(
            connection,
            Scored,
            statements.sweep(job.query.filters, per_document=best.per_document),
            statements.values_of(
                job.query,
                job.facts,
                floor=_floor(job, best),
                classes=[one.half_life_class for one in step.slices],
                since=_times(step.slices, "since"),
                until=_times(step.slices, "until"),
            ),
        )
    )


async def _rescan(connection: Connection, job: Job, best: Best) -> None:
    """Score everything that matches; the known k-th score spares the decay of most rows."""
    best.take(
        await rows.prepared(
            connection,
            Scored,
            statements.rescan(
                job.query.filters,
                floor=_floor(job, best) > -math.inf,
                per_document=best.per_document,
            ),
            statements.values_of(job.query, job.facts, floor=_floor(job, best)),
        )
    )
    best.scored += int(job.plan.matching)


def _floor(job: Job, best: Best) -> float:
    """The cosine below which a chunk needs no score; minus infinity where there is none.

    A kth of 0 or less is no floor: what lies below it may rise with its age.
    """
    least = job.query.min_similarity
    return max(best.kth if best.kth > 0 else -math.inf, -math.inf if least is None else least)


def _times(slices: Sequence[Range], end: str) -> list[datetime]:
    """One end of each slice; the later one is rounded up to be included."""
    return [_moment(getattr(one, end) + (1e-5 if end == "until" else 0)) for one in slices]


def _moment(seconds: float) -> datetime:
    """Rounded down to a microsecond, and no earlier than any chunk can be."""
    if seconds <= FIRST.timestamp():
        return FIRST
    return _EPOCH + timedelta(microseconds=math.floor(seconds * 1e6))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
