"""What is near a document, by the document's own vectors."""

from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from indexd.db import Connection
from indexd.store.documents import missing
from indexd.store.filters import Filters
from indexd.store.namespaces import facts
from indexd.store.search import Found, by_vector
from indexd.store.search.costs import Tuning
from indexd.vectors import Embedding, normalised

VANISHED = 1e-6
"""A mean of unit vectors that is shorter points nowhere."""


async def related(
    connection: Connection, namespace: str, doc_id: str, *, k: int, at: datetime, tuning: Tuning
) -> Found:
    """The k best other documents, each by its best chunk. Raises NotFound."""
    vector = await centre(connection, namespace, doc_id)
    space = await facts(connection, namespace, vector.size) if vector is not None else None
    if vector is None or space is None:
        raise missing(namespace, doc_id)
    return await by_vector(
        connection,
        space,
        vector,
        k=k,
        filters=Filters(not_doc_id=doc_id),
        at=at,
        tuning=tuning,
        per_document=True,
    )


async def centre(connection: Connection, namespace: str, doc_id: str) -> Embedding | None:
    """The normalised mean of a document's vectors, the first where that vanishes."""
    cursor = await connection.execute(
        """
        SELECT avg(embedding),
               (
                SELECT embedding
                  FROM indexd.chunks
                 WHERE namespace = %(namespace)s
                   AND doc_id = %(doc_id)s
                 ORDER BY ordinal
                 LIMIT 1
               )
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND doc_id = %(doc_id)s
        """,
        {"namespace": namespace, "doc_id": doc_id},
    )
    mean, first = await cursor.fetchone() or (None, None)
    if mean is None:
        return None
    middle: NDArray[np.float32] = mean.to_numpy()
    if np.linalg.norm(middle) > VANISHED:
        return normalised(middle)
    start: Embedding = first.to_numpy()
    return start
