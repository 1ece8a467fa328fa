"""Finding chunks: the k best by score = similarity x decay."""

from datetime import datetime
from typing import Literal

import msgspec

from indexd import vectors
from indexd.db import Connection
from indexd.store import lexical
from indexd.store.filters import MATCHES, Filters, parameters
from indexd.store.hits import Hit, best
from indexd.vectors import Embedding

EXACT = f"""
    SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
           -(embedding <#> %(vector)s) AS similarity
      FROM indexd.chunks
     WHERE namespace = %(namespace)s
       AND {MATCHES}
"""


class Search(msgspec.Struct, frozen=True):
    """What is looked for; `vector` is there in mode vector, `text` in mode lexical."""

    namespace: str
    mode: Literal["vector", "lexical"]
    k: int
    filters: Filters
    text: str
    vector: Embedding | None


async def search(connection: Connection, search: Search, *, at: datetime) -> list[Hit]:
    """The k best of the namespace, highest score first; none where it does not exist."""
    if search.vector is None:
        return await lexical.by_words(
            connection, search.namespace, search.text, k=search.k, filters=search.filters, at=at
        )
    return await by_vector(
        connection, search.namespace, search.vector, k=search.k, filters=search.filters, at=at
    )


async def dimension_of(connection: Connection, namespace: str) -> int | None:
    """The dimension of a namespace that holds documents."""
    cursor = await connection.execute(
        """
        SELECT dimension
          FROM indexd.namespaces
         WHERE namespace = %(namespace)s
           AND documents > 0
        """,
        {"namespace": namespace},
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def by_vector(
    connection: Connection,
    namespace: str,
    vector: Embedding,
    *,
    k: int,
    filters: Filters,
    at: datetime,
) -> list[Hit]:
    """The k chunks of the highest cosine x decay, ties by doc_id, then chunk_id.

    Scans the namespace, which is exact by definition. Raises DimensionMismatch.
    """
    dimension = await dimension_of(connection, namespace)
    if dimension is None:
        return []
    if dimension != vector.size:
        raise vectors.mismatch("query", dimension, vector.size)
    return await best(
        connection,
        EXACT,
        {"namespace": namespace, "vector": vector, "k": k, "at": at, **parameters(filters)},
    )
