"""Finding chunks: the k best by score = similarity x decay."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from indexd import vectors
from indexd.db import Connection
from indexd.store import lexical
from indexd.store.filters import MATCHES, Filters, parameters
from indexd.store.hits import Hit, best
from indexd.store.namespaces import Facts, facts
from indexd.store.probe_sweep import (
    Tuning,
    epsilon,
    probe_and_sweep,
    set_index_search,
    similar,
)
from indexd.store.relevance import with_marks
from indexd.vectors import Embedding

Mode = Literal["vector", "lexical"]


class Search(msgspec.Struct, frozen=True):
    """What is looked for; `vector` is there in mode vector, `text` in mode lexical."""

    namespace: str
    mode: Mode
    k: int
    filters: Filters
    text: str
    vector: Embedding | None


class Found(msgspec.Struct, frozen=True):
    """The answer, how many chunks were scored for it, and what was left out: index, sweep."""

    hits: list[Hit]
    scored: int
    degraded: list[str] = []


async def search(connection: Connection, search: Search, *, at: datetime, tuning: Tuning) -> Found:
    """The k best of the namespace, highest score first; none where it does not exist.

    Runs in the caller's snapshot. Raises DimensionMismatch.
    """
    if search.vector is None:
        hits = await lexical.by_words(
            connection, search.namespace, search.text, k=search.k, filters=search.filters, at=at
        )
        return Found(hits, len(hits))
    space = await facts(connection, search.namespace, search.vector.size)
    if space is None:
        return Found([], 0)
    if space.dimension != search.vector.size:
        raise vectors.mismatch("query", space.dimension, search.vector.size)
    found = await by_vector(
        connection, space, search.vector, k=search.k, filters=search.filters, at=at, tuning=tuning
    )
    if space.semantic:
        return Found(await with_marks(connection, space.namespace, found.hits), found.scored)
    return found


async def by_vector(
    connection: Connection,
    space: Facts,
    vector: Embedding,
    *,
    k: int,
    filters: Filters,
    at: datetime,
    tuning: Tuning,
    per_document: bool = False,
) -> Found:
    """The k chunks of the highest cosine x decay, ties by doc_id, then chunk_id.

    With `per_document` the best chunk of each of the k best documents.

    Without an index the namespace is scanned, which is exact by definition. With one, where
    nothing fades, the nearest 2k usually prove the answer; else probe and sweep finds it.
    """
    values = parameters(filters) | {
        "namespace": space.namespace,
        "vector": vector,
        "half_life": space.half_life_seconds,
        "k": k,
        "at": at,
    }
    if not space.indexed:
        found = await best(connection, EXACT, values, per_document=per_document)
        return Found(found, space.chunks)
    if space.half_life_seconds is None and filters == Filters():
        nearest = await _nearest(connection, space, values, k=2 * k, tuning=tuning)
        lowest = min((hit.similarity for hit in nearest), default=1.0)
        if len(nearest) > k and nearest[k - 1].score > max(lowest + 2 * epsilon(vector), 0.0):
            return Found(nearest[:k], len(nearest), tuning.reduced)
    keys = await probe_and_sweep(
        connection,
        space,
        vector,
        k=k,
        filters=filters,
        at=at,
        tuning=tuning,
        per_document=per_document,
    )
    chosen = keys.keys()
    found = await best(
        connection,
        _CHOSEN,
        values
        | {
            "chosen_doc_ids": [key.doc_id for key in chosen],
            "chosen_ordinals": [key.ordinal for key in chosen],
        },
    )
    return Found(found, keys.scored, [*tuning.reduced, *(["sweep"] if keys.cut else [])])


async def _nearest(
    connection: Connection, space: Facts, values: dict[str, Any], *, k: int, tuning: Tuning
) -> list[Hit]:
    """The k nearest by the index, scored exactly, in one statement that is quickly planned."""
    await set_index_search(connection, tuning.first_ef(space.chunks), filtered=False, tuning=tuning)
    nearest = _NEAREST.format(similar(space.dimension))
    return await best(connection, nearest, values | {"k": k, "wanted": k})


EXACT = f"""
    SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
           -(embedding <#> %(vector)s) AS similarity
      FROM indexd.chunks
     WHERE namespace = %(namespace)s
       AND {MATCHES}
"""

_NEAREST = """
    SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds, cosine AS similarity
      FROM ({}) AS nearby
"""

_CHOSEN = """
    SELECT chunks.doc_id, chunks.ordinal, chunk_id, ingested_at, half_life_seconds,
           -(embedding <#> %(vector)s) AS similarity
      FROM unnest(%(chosen_doc_ids)s::text[], %(chosen_ordinals)s::int[])
        AS chosen (doc_id, ordinal)
      JOIN indexd.chunks
        ON chunks.namespace = %(namespace)s
       AND chunks.doc_id = chosen.doc_id COLLATE "C"
       AND chunks.ordinal = chosen.ordinal
"""
