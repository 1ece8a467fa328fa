"""The stored vectors of texts that are sent again."""

from collections.abc import Sequence
from typing import Any

import msgspec

from indexd.db.pool import Connection
from indexd.store import rows
from indexd.vectors import Embedding


class _Embedded(msgspec.Struct, frozen=True):
    text: str
    embedding: Any


VECTORS_OF = """
    /* indexd:writing.stored_vectors */
    SELECT text, embedding
      FROM indexd.chunks
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(doc_ids)s)
       AND text = ANY(%(texts)s)
       AND embedding IS NOT NULL
"""


async def vectors_of(
    connection: Connection, namespace: str, doc_ids: Sequence[str], texts: Sequence[str]
) -> dict[str, Embedding]:
    """The stored vector of each of these texts that is a chunk of these documents."""
    found = await rows.every(
        connection,
        _Embedded,
        VECTORS_OF,
        {"namespace": namespace, "doc_ids": list(doc_ids), "texts": list(texts)},
    )
    return {one.text: one.embedding.to_numpy() for one in found}
