"""Finding chunks by their words: the k best of BM25 x decay, proved by what the others can weigh.

A round scores the chunks that hold one of the rarest words. What holds none of these weighs at most
what the other words weigh together: once the k-th best scores more, the answer is proved. Else the
next round takes more words, and the last takes all.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from indexd.db.pool import Connection
from indexd.store import policies, rows
from indexd.store.filters import parameters
from indexd.store.search import excerpt, hits, plan, terms, words
from indexd.store.search.found import Found
from indexd.store.search.hits import Hit, Word
from indexd.store.search.query import Query
from indexd.store.search.terms import Asked

FIRST_ROUND = 1_000
"""Chunks that the first round scores, about."""

GROWTH = 4
"""How many times more chunks the next round scores."""

SCANNED = 50_000
"""Chunks of a namespace up to which the only round takes all words: more rounds cost more."""

LAST_SHARE = 0.25
"""Share of the namespace's chunks from which on a round takes all words."""


class RankedChunk(msgspec.Struct, frozen=True):
    """A chunk that was found by words."""

    doc_id: str
    ordinal: int
    chunk_id: str
    similarity: float
    score: float


async def by_words(connection: Connection, query: Query) -> Found:
    """The k chunks of the highest BM25 x decay, ties by doc_id, then chunk_id."""
    policy = await policies.of(connection, query.namespace)
    half_life = policy.half_life_seconds
    asked = await terms.asked(connection, query.namespace, query.text)
    best = (await keys(connection, query, asked, half_life))[query.offset :]
    found = await fetch(connection, query, asked, best, half_life)
    if found and policy.semantic:
        found = await hits.with_marks(connection, query.namespace, found)
    return Found(found, len(found), plan.Words())


async def keys(
    connection: Connection, query: Query, asked: Asked, half_life: float | None
) -> list[RankedChunk]:
    """The k best, best first."""
    if not asked.terms:
        return []
    values: dict[str, Any] = {
        "namespace": query.namespace,
        "asked": asked.vector,
        "half_life": half_life,
        "k": query.k,
        "min_similarity": query.min_similarity,
        "at": query.at,
        **parameters(query.filters),
    }
    wanted = FIRST_ROUND
    while True:
        taken = first_terms(asked, wanted)
        statement = words.keys(
            query.filters,
            per_document=query.per_document,
            similar=query.min_similarity is not None,
            unweighed=asked.unweighed,
            broad=is_broad(asked, taken),
        )
        values["terms"] = asked.numbers[:taken]
        found = await rows.every(connection, RankedChunk, statement, values)
        if proved(asked, taken, query, found):
            return found
        wanted *= GROWTH


def first_terms(asked: Asked, wanted: int) -> int:
    """How many of the weightiest terms are together in about this many chunks; all, if in many."""
    if asked.total <= SCANNED or wanted >= asked.total * LAST_SHARE:
        return len(asked.terms)
    together = 0
    for taken, term in enumerate(asked.terms, start=1):
        together += term.chunks
        if together >= asked.total * LAST_SHARE:
            return len(asked.terms)
        if together >= wanted:
            return taken
    return len(asked.terms)


def is_broad(asked: Asked, taken: int) -> bool:
    """Whether all terms are taken, and a quarter of the chunks or more may hold one."""
    together = sum(term.chunks for term in asked.terms)
    return taken == len(asked.terms) and together >= asked.total * LAST_SHARE


def proved(asked: Asked, taken: int, query: Query, found: list[RankedChunk]) -> bool:
    """Whether no chunk without the first terms can be among the k best."""
    if taken == len(asked.terms):
        return True
    rest = asked.rest(taken)
    if query.min_similarity is not None and rest < query.min_similarity:
        return True
    return len(found) == query.k and found[-1].score > rest


async def fetch(
    connection: Connection,
    query: Query,
    asked: Asked,
    best: list[RankedChunk],
    half_life: float | None,
) -> list[Hit]:
    """The hits of some keys, in their order, with the words that counted and their places."""
    if not best:
        return []
    values = {
        "namespace": query.namespace,
        "half_life": half_life,
        "at": query.at,
        "each": asked.vectors,
        "doc_ids": [key.doc_id for key in best],
        "chunk_ids": [key.chunk_id for key in best],
        "similarities": [key.similarity for key in best],
        "scores": [key.score for key in best],
    }
    found = await hits.fetch(connection, words.HITS, values)
    found = [replace(hit, matched=matched(asked, hit)) for hit in found]
    return await excerpt.with_excerpts(connection, asked, found)


def matched(asked: Asked, hit: Hit) -> tuple[Word, ...]:
    """The words of the query that counted, each with its share, the weightiest first."""
    by_word: dict[str, float] = {}
    for term, share in zip(asked.terms, hit.words or (), strict=False):
        if share > 0:
            by_word[term.word] = by_word.get(term.word, 0.0) + share
    whole = sum(by_word.values())
    ranked = sorted(by_word.items(), key=lambda one: (-one[1], one[0]))
    return tuple(Word(word, share / whole) for word, share in ranked)
