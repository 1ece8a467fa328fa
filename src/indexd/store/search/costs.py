"""What the parts of a search cost, and the sizes that follow from it.

Costs only steer: a wrong one makes a search slower, never its answer another one.
"""

import math

import msgspec

from indexd.store.filters import Filters
from indexd.store.namespaces import Facts

SCAN_PREFERENCE = 1.5
"""An exact scan is chosen up to this multiple of the estimated cost of the index search."""

FEWEST_SIMILAR_ROWS = 64
"""Rows that an index search under a filter asks for, at least."""


class Tuning(msgspec.Struct, frozen=True):
    """Sizes in rows, costs in microseconds per row, as measured on two cores (docs/decay.md).

    `ef` overrides the number of candidates of the HNSW index, `ef_max` limits it; pgvector itself
    takes at most 1,000. `max_scan_tuples` limits how many rows of the index a filtered search reads
    in its first probe. `newest_rows` and `newest_rows_filtered` are what the newest candidates are
    read from. `slice_rows` is the size of the first slice of a sweep.
    `bound_percentile` is the share of the similar candidates, nearest first, whose last cosine
    bounds that of unseen chunks: of the farther ones an index misses more.
    From a local intrinsic dimensionality of `lid_threshold` on an index misses many neighbours, so
    it is asked for `high_lid_share` of the chunks, and for at least `high_lid_rows`.
    `candidate_share` and `scored_limit` are lowered under load (indexd.load.latency_budget): the
    share of the candidates that an index search looks at, and the number of scored rows after which
    a search that has k results ends.
    """

    ef: int | None = None
    ef_max: int = 1_000
    max_scan_tuples: int = 20_000
    newest_rows: int = 200
    newest_rows_filtered: int = 1_000
    slice_rows: int = 4_000
    bound_percentile: float = 0.5
    index_row: float = 13.0
    filtered_index_row: float = 35.0
    swept_row: float = 0.5
    exact_row: float = 1.2
    matching_row: float = 2.5
    undecayed_row: float = 0.6
    statement: float = 300.0
    lid_threshold: float = 60.0
    high_lid_rows: int = 1_000
    high_lid_share: float = 1 / 60
    candidate_share: float = 1.0
    scored_limit: float = math.inf

    def first_ef(self, chunks: int) -> int:
        """Candidates of an index of this many chunks: the recall of one ef falls as the index
        grows, and the square root keeps it.
        """
        full = self.ef or min(max(150 * math.sqrt(chunks / 40_000), 100), self.ef_max)
        return max(int(full * self.candidate_share), 1)

    def is_high(self, dimensionality: float) -> bool:
        """Whether more candidates are needed; under load nobody is given more."""
        return self.candidate_share == 1 and dimensionality > self.lid_threshold

    @property
    def degraded(self) -> list[str]:
        """What an answer by the index says of itself."""
        return ["index"] if self.candidate_share < 1 else []


def similar_rows(k: int) -> int:
    """Rows that an index search under a filter asks for."""
    return max(FEWEST_SIMILAR_ROWS, 2 * k)


def scan(matching: float, facts: Facts, filters: Filters, tuning: Tuning) -> float:
    """Microseconds to score all chunks that match."""
    in_time = Filters(
        ingested_after=filters.ingested_after, ingested_before=filters.ingested_before
    )
    if filters.is_opaque:
        return facts.chunks * tuning.matching_row  # each chunk is looked at
    if filters.asked != in_time:
        return matching * tuning.matching_row
    # Chunks of one time lie together in the table.
    if filters and facts.half_life_seconds is None:
        return matching * tuning.undecayed_row
    return matching * tuning.exact_row


def similar_row(matching: float, facts: Facts, filters: Filters, tuning: Tuning) -> float:
    """Microseconds per row that the index finds; under a filter it reads several rows for each."""
    if not filters:
        return tuning.index_row
    return tuning.filtered_index_row * facts.chunks / max(matching, 1)


def prefers_scan(matching: float, facts: Facts, filters: Filters, k: int, tuning: Tuning) -> bool:
    """Whether a scan of what matches costs little more than the index search, or less."""
    index_search = max(
        similar_rows(k) * similar_row(matching, facts, filters, tuning),
        tuning.first_ef(facts.chunks) * tuning.index_row,
    )
    return scan(matching, facts, filters, tuning) <= SCAN_PREFERENCE * index_search
