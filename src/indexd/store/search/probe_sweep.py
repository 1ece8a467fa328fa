"""The true k best under decay, at the speed of an HNSW index: probe and sweep.

    probe   the `ef` most similar chunks (HNSW) and the newest ones (btree), scored exactly
    bound   an unseen chunk has a cosine of at most U, that of a far probed one plus epsilon; with
            kth the k-th best score so far, an unseen chunk older than
            at - half_life * log2(U / kth) can't reach it
    sweep   the chunks younger than that, newest first, in slices: each slice raises kth, which
            brings the cutoff nearer
    deepen  ask the index for more instead, where that is foretold to be cheaper: it lowers U; and
            where the search is of a kind of which an index misses much
    exact   score everything, where there is no bound or nothing cheaper

docs/decay.md has the proof. What rests on the index's recall is chunks it missed that are older
than the cutoff; everything else is exact. All statements run in the caller's snapshot.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from indexd.db import Connection
from indexd.store.filters import Filters
from indexd.store.namespaces import Facts
from indexd.store.search import age_histogram as ages
from indexd.store.search import selectivity as estimates
from indexd.store.search.age_histogram import Ages
from indexd.store.search.bounds import cutoff, epsilon, half_life_bound
from indexd.store.search.costs import Tuning
from indexd.store.search.statements import (
    index_search,
    probe_statement,
    scan_statement,
    sweep_statement,
)
from indexd.store.span import FIRST
from indexd.vectors import Embedding


class Key(msgspec.Struct, frozen=True, order=True):
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
        self._keys: dict[tuple[str, int], Key] = {}

    def take(self, rows: Sequence[tuple[str, int, str, float]]) -> None:
        """Rows are doc_id, ordinal, chunk_id, score."""
        for doc_id, ordinal, chunk_id, score in rows:
            key = Key(-score, doc_id, chunk_id, ordinal)
            place = self._place(key)
            self._keys[place] = min(key, self._keys.get(place, key))
        if len(self._keys) > self.k:
            self._keys = {self._place(key): key for key in self.keys()}

    def keys(self) -> list[Key]:
        return sorted(self._keys.values())[: self.k]

    @property
    def kth(self) -> float:
        """The k-th best score; minus infinity while there are fewer."""
        keys = self.keys()
        return -keys[-1].minus_score if len(keys) == self.k else -math.inf

    def _place(self, key: Key) -> tuple[str, int]:
        return key.doc_id, 0 if self.per_document else key.ordinal


class Probe(msgspec.Struct, frozen=True):
    """What the arms say besides rows; cosines of the similar arm are those of halfvec."""

    similar: int
    bound: float | None
    halfway: float | None
    newest: int
    edge: datetime | None
    classes: list[int]
    dimensionality: float | None


class Range(msgspec.Struct, frozen=True):
    """Chunks of one half-life class, both ends included, in seconds since 1970."""

    half_life_class: int
    since: float
    until: float


async def probe_and_sweep(
    connection: Connection,
    space: Facts,
    vector: Embedding,
    values: dict[str, Any],
    *,
    k: int,
    filters: Filters,
    at: datetime,
    tuning: Tuning,
    per_document: bool = False,
) -> Best | float:
    """The k best of an indexed namespace: their keys, and how many rows were scored.

    `values` are the parameters of a scan for the same.
    Or how many chunks match, about: so few that it is cheaper to scan them, which is not done.
    """
    values = values | {"trusted": tuning.trusted}
    best = Best(k, per_document=per_document)
    filtered = filters != Filters()
    matching = float(space.chunks)
    # Fewer candidates than 2k would hardly ever prove the k-th.
    ef = min(max(tuning.first_ef(space.chunks), 2 * k), tuning.ef_max)
    wanted = ef
    if filtered:
        matching = min(await estimates.matching(connection, space, filters, values), matching)
        wanted = estimates.similar_rows(k)
        if estimates.are_few(matching, space, filters, k, tuning):
            return matching
    similar_row = estimates.similar_cost(matching, space, filters, tuning)
    scanning = estimates.scan_cost(matching, space, filters, tuning)

    on_to = tuning.max_scan_tuples if filtered else None

    async def probing(ef: int, wanted: int, newest: int = 0) -> Probe:
        settings = index_search(ef, on_to=on_to, tuning=tuning)
        return await _probe(
            connection, best, space.dimension, filters, values, settings, wanted, newest
        )

    spread = await ages.of(connection, space.namespace)
    newest = tuning.newest_read if filtered else tuning.newest
    probe = await probing(ef, wanted, newest)
    if probe.newest < newest or probe.edge is None:
        return best  # the newest arm has read everything there is
    swept = dict.fromkeys(probe.classes, probe.edge.timestamp())
    if (probe.dimensionality or 0) > tuning.hard_from:
        rows = max(tuning.hard_rows, space.chunks * tuning.hard_share)
        wanted = max(wanted, int(rows * matching / space.chunks))
        if scanning <= estimates.PREFERRED * wanted * similar_row:
            return await _exact(connection, best, filters, values, matching)
        on_to = max(tuning.max_scan_tuples, space.chunks)
        probe = await probing(wanted, wanted)
    slack = epsilon(vector)
    bound, wide = probe.bound, tuning.slice_rows
    while True:
        if bound is None or best.kth <= 0:
            return await _exact(connection, best, filters, values, matching)
        upper = max(bound + slack, 0.0)
        if best.kth > upper:
            return best
        open_ranges = _open(swept, space, at, upper, best.kth)
        if not open_ranges:
            return best
        if best.scored >= tuning.scored_limit:
            best.cut = True
            return best
        sweeping = _chunks(open_ranges, spread) * tuning.swept_row + tuning.statement

        deeper, ef_next, ef_deeper = math.inf, wanted, wanted
        step = max((probe.halfway or 0) - (probe.bound or 0), 1e-4)
        while probe.similar >= 0.9 * wanted and ef_next < tuning.ef_max:
            ef_next = min(int(ef_next * 1.5), tuning.ef_max)
            below = upper - step * math.log2(ef_next / wanted)
            left = _open(swept, space, at, below, best.kth) if below >= best.kth else []
            cost = (
                ef_next * similar_row
                + _chunks(left, spread) * tuning.swept_row
                + 2 * tuning.statement
            )
            if cost < min(deeper, 0.9 * sweeping):
                deeper, ef_deeper = cost, ef_next

        if min(sweeping, deeper) > scanning:
            if matching > tuning.scored_limit:
                best.cut = True
                return best
            return await _exact(connection, best, filters, values, matching)
        if deeper < math.inf:
            wanted = ef_deeper
            probe = await probing(wanted, wanted)
            bound = min(bound, probe.bound) if probe.bound is not None else bound
            continue
        slices = [_newest_part(one, spread, wide) for one in open_ranges]
        best.scored += int(_chunks(slices, spread))
        await _sweep(connection, best, filters, values, slices)
        swept |= {one.half_life_class: one.since for one in slices}
        wide *= 2


def _open(
    swept: dict[int, float], space: Facts, at: datetime, upper: float, kth: float
) -> list[Range]:
    """Where a chunk that reaches kth may still be, by class."""
    return [
        Range(one, since, until)
        for one, until in swept.items()
        if (
            since := cutoff(
                at.timestamp(), half_life_bound(one, space.half_life_seconds), upper, kth
            )
        )
        < until
    ]


def _chunks(ranges: Sequence[Range], spread: Ages) -> float:
    """About how many chunks lie in the ranges."""
    return sum(
        max(one.older(r.until) - one.older(r.since), 0.0)
        for r in ranges
        if (one := spread.get(r.half_life_class))
    )


def _newest_part(one: Range, spread: Ages, chunks: int) -> Range:
    """The newest so many chunks of a range; the whole where little more would be left."""
    if _chunks([one], spread) <= 1.3 * chunks:
        return one
    since = spread[one.half_life_class].before(one.until, chunks)
    return Range(one.half_life_class, max(since, one.since), one.until)


async def _probe(
    connection: Connection,
    best: Best,
    dimension: int,
    filters: Filters,
    values: dict[str, Any],
    settings: list[str],
    wanted: int,
    newest: int,
) -> Probe:
    await connection.execute(";".join(settings))
    cursor = await connection.execute(
        probe_statement(dimension, filters, per_document=best.per_document),
        values | {"wanted": wanted, "newest": newest},
    )
    rows = await cursor.fetchall()
    said = len(Probe.__struct_fields__)
    probe = Probe(*rows[0][:said])
    best.take([row[said:] for row in rows if row[said] is not None])
    best.scored += probe.similar + probe.newest
    return probe


async def _sweep(
    connection: Connection,
    best: Best,
    filters: Filters,
    values: dict[str, Any],
    slices: Sequence[Range],
) -> None:
    cursor = await connection.execute(
        sweep_statement(filters, per_document=best.per_document),
        values
        | {
            "kth": best.kth,
            "classes": [one.half_life_class for one in slices],
            "since": [_moment(one.since) for one in slices],
            "until": [_moment(one.until + 1e-5) for one in slices],
        },
    )
    best.take(await cursor.fetchall())


def _moment(seconds: float) -> datetime:
    """Rounded down to a microsecond, and no earlier than any chunk can be."""
    if seconds <= FIRST.timestamp():
        return FIRST
    return _EPOCH + timedelta(microseconds=math.floor(seconds * 1e6))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def _exact(
    connection: Connection, best: Best, filters: Filters, values: dict[str, Any], matching: float
) -> Best:
    """Score everything that matches; what is known already spares the decay of most rows."""
    cursor = await connection.execute(
        scan_statement(filters, floor=best.kth > 0, per_document=best.per_document),
        values | {"kth": best.kth},
    )
    best.take(await cursor.fetchall())
    best.scored += int(matching)
    return best
