"""Searches that may do with one statement: a scan, or the k nearest where these prove the answer.

What a process last saw of a namespace says how to ask; whether that still holds is read in the
same statement, so in the same snapshot as the answer. Where it does not, or where the nearest 2k
prove nothing, nobody learns of the attempt: the search is made again, the long way.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from indexd.store.filters import Filters, parameters
from indexd.store.namespaces import FACTS, Facts, facts_values
from indexd.store.search.bounds import epsilon
from indexd.store.search.costs import Tuning
from indexd.store.search.hits import Hit, best_statement, exact, hit_from
from indexd.store.search.selectivity import few
from indexd.store.search.statements import index_search, similar
from indexd.vectors import Embedding


class Attempt(msgspec.Struct, frozen=True):
    """One statement, and what must be set for it in its transaction.

    `slack` is the error of halfvec, twice, for the proof of the nearest; a scan needs none. From a
    local intrinsic dimensionality of `hard` on the index is not trusted so lightly.
    `reduced` is what the answer must say of itself.
    """

    settings: Sequence[str]
    statement: str
    values: dict[str, Any]
    expected: Facts
    scored: int
    slack: float | None
    hard: float = math.inf
    reduced: list[str] = []


_seen: dict[tuple[str, int], Facts] = {}
_vain: dict[tuple[str, int], int] = {}
_KEPT = 1_000

PATIENCE = 3
"""After so many attempts in vain, one after the other, only one in RETRY is made."""

RETRY = 16


def remember(space: Facts) -> None:
    """Searches of it may be tried in one statement, unless there are marks to look up as well."""
    if space.semantic:
        return
    if len(_seen) >= _KEPT:
        _seen.clear()
        _vain.clear()
    _seen[space.namespace, space.dimension] = space


def attempt(
    namespace: str,
    vector: Embedding,
    *,
    k: int,
    filters: Filters,
    at: datetime,
    tuning: Tuning,
) -> Attempt | None:
    """How to try it; None for a namespace that is not remembered, or if one will not do."""
    space = _seen.get((namespace, vector.size))
    if space is None:
        return None
    values = facts_values(namespace, space.dimension) | {"vector": vector, "k": k, "at": at}
    scanned = float(space.chunks) if not space.indexed else few(space, filters, k, tuning)
    if scanned is not None:
        return Attempt(
            settings=(),
            statement=scan_statement(space.dimension, filters),
            values=values | parameters(filters) | {"half_life": space.half_life_seconds},
            expected=space,
            scored=int(scanned),
            slack=None,
        )
    if filters != Filters() or space.half_life_seconds is not None or _is_vain(space):
        return None
    # Fewer say nothing of how hard the search is.
    wanted = max(2 * k, 20)
    return Attempt(
        settings=index_search(tuning.first_ef(space.chunks), tuning=tuning),
        statement=nearest_statement(space.dimension),
        values=values | {"wanted": wanted},
        expected=space,
        scored=wanted,
        slack=2 * epsilon(vector),
        hard=tuning.hard_from,
        reduced=tuning.reduced,
    )


def _is_vain(space: Facts) -> bool:
    key = space.namespace, space.dimension
    vain = _vain.get(key, 0)
    if vain < PATIENCE:
        return False
    _vain[key] = vain + 1
    return vain % RETRY > 0


def proven(attempt: Attempt, rows: Sequence[tuple[Any, ...]]) -> list[Hit] | None:
    """The hits, if the namespace is as expected and no chunk that was not seen can be among them.

    Rows come in the order of an answer; where nothing was found, one of NULLs comes.
    """
    expected = attempt.expected
    key = expected.namespace, expected.dimension
    space = Facts(*rows[0][:_FACTS]) if rows else None
    if space is None or msgspec.structs.replace(space, chunks=expected.chunks) != expected:
        _seen.pop(key, None)
        return None
    remember(space)
    found = [row[_FACTS:] for row in rows if row[_FACTS] is not None]
    if attempt.slack is None:
        return [hit_from(row) for row in found]
    # An unseen chunk has at most the lowest cosine seen plus an error of halfvec each, for that
    # and for itself; one of the k that has a half-life of its own decays after all.
    proof = (
        len(found) == attempt.values["k"]
        and found[-1][_SCORE] > max(found[0][_LOWEST] + attempt.slack, 0.0)
        and dimensionality(
            [row[_SCORE] for row in found], found[0][_LOWEST], attempt.values["wanted"]
        )
        <= attempt.hard
        and all(row[_HALF_LIFE] is None for row in found)
    )
    _vain[key] = 0 if proof else _vain.get(key, 0) + 1
    return [hit_from(row[:_LOWEST]) for row in found] if proof else None


_FACTS = len(Facts.__struct_fields__)
_SCORE, _HALF_LIFE, _LOWEST = 2, 6, 17
"""Places in a row of `best_statement`, and of the one column more of `nearest_statement`."""


def dimensionality(nearest: Sequence[float], farthest: float, looked_at: int) -> float:
    """That of `indexd.store.arms`, of the cosines of the nearest and of the farthest looked at.

    Of points spread evenly in so many dimensions the i-th of n lies at (i/n)^(1/dimensions) of the
    distance of the n-th.
    """
    grown = [math.log(max(1 - farthest, 1e-9) / max(1 - one, 1e-9)) / 2 for one in nearest]
    expected = [math.log(looked_at / place) for place in range(1, len(nearest) + 1)]
    return sum(expected) / max(sum(grown), 1e-9)


def scan_statement(dimension: int, filters: Filters) -> str:
    """The namespace's facts beside each of its k best chunks, or beside NULLs."""
    # Vectors of another dimension can't even be compared: then nothing is read.
    candidates = f"""
        {exact(filters)}
           AND EXISTS (
                SELECT
                  FROM indexd.namespaces
                 WHERE namespace = %(namespace)s
                   AND dimension = {dimension}
           )
    """
    return f"""
        SELECT space.*, hit.*
          FROM ({FACTS}) AS space
          LEFT JOIN ({best_statement(candidates)}) AS hit
            ON true
         ORDER BY hit.score DESC, hit.doc_id, hit.chunk_id
    """


def nearest_statement(dimension: int) -> str:
    """The same of its k nearest chunks, as far as they do not decay, and the 2k-th's cosine."""
    return f"""
        WITH nearest AS (
            SELECT *, min(cosine) OVER () AS lowest
              FROM ({similar(dimension, Filters(), "text, meta, tags")}) AS nearby
             ORDER BY cosine DESC, doc_id, chunk_id
             LIMIT %(k)s
        )
        SELECT space.*, hit.*
          FROM ({FACTS}) AS space
          LEFT JOIN (
                SELECT nearest.doc_id,
                       nearest.chunk_id,
                       cosine AS score,
                       cosine AS similarity,
                       1::float8 AS decay,
                       greatest(date_part('epoch', %(at)s - nearest.ingested_at), 0),
                       nearest.half_life_seconds,
                       text,
                       nearest.meta,
                       tags,
                       nearest.ingested_at,
                       NULL::text[] AS words,
                       document.source_ref_origin,
                       document.source_ref_id,
                       document.source_ref_offset,
                       document.source_ref_trust_level,
                       document.source_ref_injected_by,
                       lowest
                  FROM nearest
                  JOIN indexd.documents AS document
                    ON document.namespace = %(namespace)s
                   AND document.doc_id = nearest.doc_id
               ) AS hit
            ON true
         ORDER BY hit.score DESC, hit.doc_id, hit.chunk_id
    """
