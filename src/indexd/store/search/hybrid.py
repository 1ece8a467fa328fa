"""Words and meaning together: reciprocal rank fusion of two rankings, both under decay."""

from collections.abc import Sequence

from indexd.db.pool import Connection
from indexd.store.namespaces import Facts
from indexd.store.search import hits, lexical, statements
from indexd.store.search.hits import Hit
from indexd.store.search.query import Query

SMOOTHING = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)."""


async def fused(
    connection: Connection, query: Query, facts: Facts, near: Sequence[Hit]
) -> list[Hit]:
    """The k best of `near`, the POOL best by vector, and of the POOL best by words.

    A hit's similarity is its fused rank in 0..1; its words are there if these found it.
    """
    said = await lexical.pool(connection, query, facts.half_life_seconds)
    values = {
        "namespace": facts.namespace,
        "shown": lexical.shown_words(query.text),
        "half_life": facts.half_life_seconds,
        "smoothing": SMOOTHING,
        "page": query.page,
        "offset": query.offset,
        "at": query.at,
        "near_doc_ids": [hit.doc_id for hit in near],
        "near_chunk_ids": [hit.chunk_id for hit in near],
        "said_doc_ids": [one.doc_id for one in said],
        "said_chunk_ids": [one.chunk_id for one in said],
    }
    return await hits.fetch(connection, statements.fused(per_document=query.per_document), values)
