"""What the score of a chunk that was not seen can be at most; docs/decay.md has the proofs."""

import math
from collections.abc import Sequence

import numpy as np

from indexd.vectors import Embedding

NO_HALF_LIFE = 32767
"""chunks.half_life_class of those without a half-life of their own."""


def epsilon(vector: Embedding) -> float:
    """Upper bound of |float32 cosine - halfvec cosine| between this query and any unit vector.

    |qv - q'v'| <= |q - q'| |v'| + |q| |v - v'|, where ' is rounding to halfvec: to nearest, so
    |v - v'| <= 2^-11 |v| + 2^-25 sqrt(D) (the second term is that of subnormals), and |q - q'| is
    known. Both products are summed in float32, with an error of at most 1.01 D 2^-24 each.
    """
    rounded_off = vector.astype(np.float64) - vector.astype(np.float16)
    query_error = math.sqrt(rounded_off @ rounded_off)
    chunk_error = 2.0**-11 * (1 + 1e-5) + 2.0**-25 * math.sqrt(vector.size)
    summation = 2 * 1.01 * vector.size * 2.0**-24
    return (query_error * (1 + chunk_error) + chunk_error) * (1 + 1e-5) + summation + 1e-7


def half_life_bound(half_life_class: int, policy: float | None) -> float:
    """No chunk of the class has a longer half-life; infinity where one may not decay at all."""
    if half_life_class == NO_HALF_LIFE:
        return math.inf if policy is None else policy
    return math.ldexp(1 + 1e-9, half_life_class) if half_life_class < 1024 else math.inf


def cutoff(at: float, half_life: float, upper: float, kth: float) -> float:
    """Unseen chunks older than this (seconds since 1970) can't reach kth; 0 < kth <= upper.

    A difference of logarithms, widened by more than they are rounded.
    """
    if half_life == math.inf:
        return -math.inf
    return at - (math.log2(upper) - math.log2(kth)) * half_life * (1 + 1e-6) - 1e-3


def local_dimensionality(cosines: Sequence[float]) -> float:
    """The local intrinsic dimensionality around a query, from the cosines of its nearest chunks,
    highest first, by maximum likelihood (Amsaleg et al., 2015): how little the distances grow from
    the nearest to the farthest. Zero where they do not grow at all, which tells nothing.

    Of n points spread evenly in d dimensions the i-th lies at (i/n)^(1/d) of the distance of the
    n-th. The distance of unit vectors is sqrt(2 (1 - cosine)).
    """
    if not cosines:
        return 0.0
    distances = np.sqrt(np.maximum(1 - np.asarray(cosines), 1e-9))
    growth = float(np.log(distances[-1] / distances).sum())
    return len(cosines) / growth if growth > 0 else 0.0
