"""The vectors there are already, for texts that come again."""

from collections.abc import Sequence

from indexd.db.pool import Connection
from indexd.vectors import Embedding


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
