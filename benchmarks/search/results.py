"""What `searching` found out."""

from collections.abc import Sequence
from typing import Self

import msgspec
import numpy as np


class Times(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p95: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        return cls(*(float(np.quantile(seconds, share)) * 1000 for share in (0.5, 0.95)))

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p95:.1f}"


class HalfLife(msgspec.Struct, frozen=True):
    """`scored` are chunks at p50; `bare` is the nearest k without any decay."""

    name: str
    recall: float
    scored: float
    http: Times
    bare: Times
    exact: Times
    overfetch: Times
    overfetch_recall: float


class Filtered(msgspec.Struct, frozen=True):
    kind: str
    share: float
    half_life: str
    recall: float
    http: Times
    exact: Times


class Crowd(msgspec.Struct, frozen=True):
    """Requests per second, and the server process's CPU per request."""

    http: float
    bare: float
    cpu_ms: float


class Upserts(msgspec.Struct, frozen=True):
    indexed: Times
    empty: Times


class AtSize(msgspec.Struct, frozen=True):
    """All that was measured at one size; load averages are of one minute."""

    chunks: int
    ef: int
    loaded: float
    built: float
    index_bytes: int
    versions: str
    queries: int
    load_before: float
    half_lives: list[HalfLife]
    filtered: list[Filtered]
    crowd: Crowd | None
    upserts: Upserts | None
    load_after: float
