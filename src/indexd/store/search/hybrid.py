"""Words and meaning together: reciprocal rank fusion of two rankings, both under decay."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from indexd.db import Connection
from indexd.store.filters import Filters, parameters
from indexd.store.namespaces import Facts
from indexd.store.search import lexical
from indexd.store.search.hits import Hit, best

POOL = 200
"""So many of each arm are ranked. Decay counts before: a short list that is faded afterwards
holds almost none of the best."""

SMOOTHING = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)."""

_WORDS = """
    SELECT doc_id, chunk_id
      FROM ({}) AS matching
     ORDER BY indexd.score(
                  similarity, ingested_at, coalesce(half_life_seconds, %(half_life)s), %(at)s
              ) DESC, doc_id, chunk_id
     LIMIT %(pool)s
"""

# Each arm is given as ids in the order of its ranking. First in both is 1.
_FUSED = """
    WITH meaning AS (
        SELECT *
          FROM unnest(%(near_doc_ids)s::text[], %(near_chunk_ids)s::text[])
               WITH ORDINALITY AS near (doc_id, chunk_id, place)
    ),
    words AS (
        SELECT *
          FROM unnest(%(said_doc_ids)s::text[], %(said_chunk_ids)s::text[])
               WITH ORDINALITY AS said (doc_id, chunk_id, place)
    ),
    fused AS (
        SELECT doc_id,
               chunk_id,
               (
                   coalesce(1 / (%(smoothing)s::float8 + meaning.place), 0)
                 + coalesce(1 / (%(smoothing)s::float8 + words.place), 0)
               ) * (%(smoothing)s::float8 + 1) / 2 AS similarity
          FROM meaning
          FULL JOIN words USING (doc_id, chunk_id)
    )
    SELECT chunks.doc_id, chunks.ordinal, chunks.chunk_id, chunks.ingested_at,
           chunks.half_life_seconds, fused.similarity
      FROM fused
      JOIN indexd.chunks
        ON chunks.namespace = %(namespace)s
       AND chunks.doc_id = fused.doc_id COLLATE "C"
       AND chunks.chunk_id = fused.chunk_id COLLATE "C"
"""

# What the vector alone found is not said to be a text match, though it may hold the words too.
_MATCHED_WORDS = f"""CASE WHEN (best.doc_id, best.chunk_id) IN (
    SELECT * FROM unnest(%(said_doc_ids)s::text[], %(said_chunk_ids)s::text[])
) THEN {lexical.MATCHED_WORDS} END"""


async def fused(
    connection: Connection,
    space: Facts,
    near: Sequence[Hit],
    query: str,
    *,
    k: int,
    filters: Filters,
    at: datetime,
) -> list[Hit]:
    """The k best of `near`, the POOL best by vector, and of the POOL best by words.

    A hit's similarity is its fused rank in 0..1; its words are there if these found it.
    """
    values: dict[str, Any] = parameters(filters) | {
        "namespace": space.namespace,
        "query": query,
        "shown": lexical.shown_words(query),
        "half_life": space.half_life_seconds,
        "pool": POOL,
        "smoothing": SMOOTHING,
        "k": k,
        "at": at,
        "near_doc_ids": [hit.doc_id for hit in near],
        "near_chunk_ids": [hit.chunk_id for hit in near],
    }
    said: list[tuple[str, str]] = []
    for candidates in lexical.candidates(filters):
        cursor = await connection.execute(_WORDS.format(candidates), values)
        if said := await cursor.fetchall():
            break
    values["said_doc_ids"] = [doc_id for doc_id, _ in said]
    values["said_chunk_ids"] = [chunk_id for _, chunk_id in said]
    return await best(connection, _FUSED, values, words=_MATCHED_WORDS)
