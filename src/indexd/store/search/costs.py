"""Sizes of a search over an index, and what its parts cost."""

import math

import msgspec


class Tuning(msgspec.Struct, frozen=True):
    """Sizes of the arms, and what a row costs in microseconds, as measured (docs/decay.md).

    `trusted` is the share of the similar arm, nearest first, beyond which chunks may be missing.
    A search is hard from so high a local intrinsic dimensionality on: the index misses much of what
    is near it unless it gives that share of the chunks, and at least so many rows.
    Under load (indexd.budget) `effort` is the share of the candidates that are looked at, and after
    `scored_limit` rows a search that has k results leaves it at those.
    """

    ef: int | None = None
    ef_max: int = 1_000
    max_scan_tuples: int = 20_000
    newest: int = 200
    newest_read: int = 1_000
    slice_rows: int = 4_000
    trusted: float = 0.5
    index_row: float = 13.0
    filtered_index_row: float = 35.0
    swept_row: float = 0.5
    exact_row: float = 1.2
    matching_row: float = 2.5
    undecayed_row: float = 0.6
    statement: float = 300.0
    hard: float = 60.0
    hard_rows: int = 1_000
    hard_share: float = 1 / 60
    effort: float = 1.0
    scored_limit: float = math.inf

    def first_ef(self, chunks: int) -> int:
        """The recall of one ef falls as the index grows; the square root keeps it."""
        full = self.ef or min(max(150 * math.sqrt(chunks / 40_000), 100), self.ef_max)
        return max(int(full * self.effort), 1)

    @property
    def hard_from(self) -> float:
        """Under load nothing is given more."""
        return math.inf if self.effort < 1 else self.hard

    @property
    def reduced(self) -> list[str]:
        """What an answer over the index says of itself."""
        return ["index"] if self.effort < 1 else []
