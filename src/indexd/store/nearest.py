"""Where nothing decays: the k nearest and the proof that they are the answer, in one statement.

What a process last saw of a namespace says how to ask; whether that still holds is read in the
same statement, so in the same snapshot as the answer. Where it does not, or where the nearest 2k
prove nothing, nobody learns of the attempt: the search is made again, the long way.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from indexd.store.documents import SourceRef
from indexd.store.filters import Filters
from indexd.store.hits import Hit
from indexd.store.namespaces import FACTS, Facts, facts_values
from indexd.store.probe_sweep import Tuning, epsilon, index_search, similar
from indexd.vectors import Embedding


class Attempt(msgspec.Struct, frozen=True):
    """One statement, and what must be set for it in its transaction."""

    settings: Sequence[str]
    statement: str
    values: dict[str, Any]
    expected: Facts
    slack: float


_seen: dict[tuple[str, int], Facts] = {}
_vain: dict[tuple[str, int], int] = {}
_KEPT = 1_000

PATIENCE = 3
"""After so many attempts in vain, one after the other, only one in RETRY is made."""

RETRY = 16


def remember(space: Facts) -> None:
    """Searches of it may be tried in one statement; its size says with which ef.

    For a namespace with an index, and without a half-life or marks to look up.
    """
    if len(_seen) >= _KEPT:
        _seen.clear()
        _vain.clear()
    _seen[space.namespace, space.dimension] = space


def attempt(
    namespace: str, vector: Embedding, *, k: int, at: datetime, tuning: Tuning
) -> Attempt | None:
    """How to try it; None for a namespace that is not remembered."""
    key = namespace, vector.size
    space = _seen.get(key)
    if space is None:
        return None
    vain = _vain.get(key, 0)
    if vain >= PATIENCE:
        _vain[key] = vain + 1
        if vain % RETRY:
            return None
    return Attempt(
        settings=index_search(tuning.first_ef(space.chunks), filtered=False, tuning=tuning),
        statement=nearest_statement(space.dimension),
        values=facts_values(namespace, space.dimension)
        | {"vector": vector, "k": k, "wanted": 2 * k, "at": at},
        expected=space,
        slack=2 * epsilon(vector),
    )


def proven(attempt: Attempt, rows: Sequence[tuple[Any, ...]]) -> list[Hit] | None:
    """The hits, if the namespace is as expected and no chunk that was not seen can be among them.

    An unseen chunk has at most the lowest cosine seen plus an error of halfvec each for that and
    for itself. Rows come in the order of an answer; where nothing is near, one of NULLs comes.
    """
    expected = attempt.expected
    key = expected.namespace, expected.dimension
    space = Facts(*rows[0][:_FACTS]) if rows else None
    if space is None or msgspec.structs.replace(space, chunks=expected.chunks) != expected:
        _seen.pop(key, None)
        return None
    remember(space)
    lowest, *_ = rows[0][_FACTS:]
    hits = [_hit(*row[_FACTS + 2 :]) for row in rows] if lowest is not None else []
    proof = (
        len(hits) == attempt.values["k"]
        and hits[-1].score > max(lowest + attempt.slack, 0.0)
        # One with a half-life of its own decays after all.
        and all(row[_FACTS + 1] is None for row in rows)
    )
    _vain[key] = 0 if proof else _vain.get(key, 0) + 1
    return hits if proof else None


_FACTS = len(Facts.__struct_fields__)


def _hit(
    doc_id: str,
    chunk_id: str,
    cosine: float,
    age_seconds: float,
    text: str,
    meta: dict[str, Any],
    tags: list[str],
    ingested_at: datetime,
    *source_ref: Any,
) -> Hit:
    return Hit(
        doc_id=doc_id,
        chunk_id=chunk_id,
        score=cosine,
        similarity=cosine,
        decay=1.0,
        age_seconds=age_seconds,
        half_life_seconds=None,
        text=text,
        meta=meta,
        tags=tags,
        source_ref=SourceRef(*source_ref) if source_ref[0] is not None else None,
        ingested_at=ingested_at,
        words=None,
    )


def nearest_statement(dimension: int) -> str:
    """The namespace's facts beside each of its k nearest chunks, or beside NULLs."""
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
                SELECT lowest,
                       nearest.half_life_seconds,
                       nearest.doc_id,
                       nearest.chunk_id,
                       cosine,
                       greatest(date_part('epoch', %(at)s - nearest.ingested_at), 0),
                       text,
                       nearest.meta,
                       tags,
                       nearest.ingested_at,
                       source_ref.source_ref_origin,
                       source_ref_id,
                       source_ref_offset,
                       source_ref_trust_level,
                       source_ref_injected_by
                  FROM nearest
                  JOIN indexd.documents AS source_ref
                    ON source_ref.namespace = %(namespace)s
                   AND source_ref.doc_id = nearest.doc_id
               ) AS hit
            ON true
         ORDER BY hit.cosine DESC, hit.doc_id, hit.chunk_id
    """
