"""What is near a document, by the document's own vectors."""

from datetime import datetime
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.documents import missing
from indexd.store.search import statements
from indexd.store.search.query import Query
from indexd.vectors import Embedding, normalised

VANISHED = 1e-6
"""Length of a mean of unit vectors below which it has no direction."""


class _Centre(msgspec.Struct, frozen=True):
    """pgvector's vectors; None where no chunk of the document has one."""

    chunks: int
    mean: Any
    first: Any


async def with_vector(connection: Connection, query: Query) -> Query:
    """The query with the vector of the document that it names; without one where that has none.

    Raises NotFound.
    """
    doc_id = query.related_to
    assert doc_id is not None  # noqa: S101 (the caller's condition)
    vector = await centre(connection, query.namespace, doc_id, at=query.at)
    return replace(query, vector=vector, filters=replace(query.filters, not_doc_id=doc_id))


async def centre(
    connection: Connection, namespace: str, doc_id: str, *, at: datetime
) -> Embedding | None:
    """The normalised mean of a document's vectors, the first where that vanishes.

    None where none of its chunks has a vector. Raises NotFound, also where it has expired.
    """
    values = {"namespace": namespace, "doc_id": doc_id, "at": at}
    found = await rows.first(connection, _Centre, statements.centre(), values)
    if found is None or found.chunks == 0:
        raise missing(namespace, doc_id)
    if found.mean is None:
        return None
    mean: NDArray[np.float32] = found.mean.to_numpy()
    if np.linalg.norm(mean) > VANISHED:
        return normalised(mean)
    first: Embedding = found.first.to_numpy()
    return first
