"""Words and meaning together: reciprocal rank fusion of two rankings, both under decay."""

from collections.abc import Sequence

from msgspec.structs import replace

from indexd.db.pool import Connection
from indexd.store.namespaces import Facts
from indexd.store.search import lexical, plan, terms
from indexd.store.search.hits import Hit
from indexd.store.search.lexical import RankedChunk
from indexd.store.search.query import Query

SMOOTHING = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)."""


async def fused(
    connection: Connection, query: Query, facts: Facts, near: Sequence[Hit]
) -> list[Hit]:
    """The k best of `near`, the POOL best by vector, and of the POOL best by words.

    A hit's similarity and its score are its fused rank in 0..1: both rankings are under decay, so
    it counts once. Its words are there if these found it.
    """
    half_life = facts.half_life_seconds
    asked = await terms.asked(connection, query.namespace, query.text)
    pool = replace(query, k=plan.POOL, offset=0, per_document=False, min_similarity=None)
    said = await lexical.keys(connection, pool, asked, half_life)
    ranks = fuse(
        [(hit.doc_id, hit.chunk_id) for hit in near],
        [(key.doc_id, key.chunk_id) for key in said],
    )
    best = ranked(ranks, per_document=query.per_document)[query.offset : query.k]
    found = await lexical.fetch(connection, query, asked, best, half_life)
    by_words = {(key.doc_id, key.chunk_id) for key in said}
    # What the vector alone found is not called a text match, though it may hold the words too.
    return [
        hit
        if (hit.doc_id, hit.chunk_id) in by_words
        else replace(hit, words=None, matched=(), excerpt=None, highlights=())
        for hit in found
    ]


Id = tuple[str, str]
"""doc_id and chunk_id."""


def fuse(*arms: Sequence[Id]) -> dict[Id, float]:
    """The fused rank of each, scaled so that the first of all arms has 1."""
    best = len(arms) / (SMOOTHING + 1)
    ranks: dict[Id, float] = {}
    for arm in arms:
        for place, one in enumerate(arm, start=1):
            ranks[one] = ranks.get(one, 0.0) + 1 / (SMOOTHING + place)
    return {one: rank / best for one, rank in ranks.items()}


def ranked(ranks: dict[Id, float], *, per_document: bool) -> list[RankedChunk]:
    """Best first, ties by doc_id, then chunk_id; `per_document` keeps the best of each document."""
    ordered = sorted(ranks, key=lambda one: (-ranks[one], one))
    if per_document:
        first: dict[str, Id] = {}
        for one in ordered:
            first.setdefault(one[0], one)
        ordered = list(first.values())
    return [
        RankedChunk(doc_id, 0, chunk_id, ranks[doc_id, chunk_id], ranks[doc_id, chunk_id])
        for doc_id, chunk_id in ordered
    ]
