"""What must be known before a text is embedded: whose vectors a namespace holds, and which."""

from collections.abc import Sequence

import msgspec

from indexd.db import Connection
from indexd.vectors import Embedding, Model


class Bound(msgspec.Struct, frozen=True):
    """What a namespace that holds documents is bound to."""

    dimension: int
    model: Model | None


async def bound(connection: Connection, namespaces: Sequence[str]) -> dict[str, Bound]:
    """Of each namespace that holds documents."""
    cursor = await connection.execute(
        """
        SELECT namespace, dimension, embedding_model, embedding_revision
          FROM indexd.namespaces
         WHERE namespace = ANY(%(namespaces)s)
           AND documents > 0
        """,
        {"namespaces": list(namespaces)},
    )
    return {
        namespace: Bound(dimension, Model(name, revision) if name is not None else None)
        for namespace, dimension, name, revision in await cursor.fetchall()
    }


async def vectors_of(
    connection: Connection, namespace: str, doc_ids: Sequence[str], texts: Sequence[str]
) -> dict[str, Embedding]:
    """The stored vector of each of these texts that is a chunk of these documents."""
    cursor = await connection.execute(
        """
        SELECT text, embedding
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(doc_ids)s)
           AND text = ANY(%(texts)s)
        """,
        {"namespace": namespace, "doc_ids": list(doc_ids), "texts": list(texts)},
    )
    return {text: vector.to_numpy() for text, vector in await cursor.fetchall()}
