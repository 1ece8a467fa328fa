"""Finding chunks by their words, with PostgreSQL's full text search in German and English."""

import re
from typing import Any

import msgspec

from indexd.db.pool import Connection
from indexd.store import policies, rows
from indexd.store.filters import parameters
from indexd.store.search import hits, plan, statements
from indexd.store.search.found import Found
from indexd.store.search.query import Query

SHOWN_WORDS = 32
"""Words of a query that are looked at for a hit's rationale."""

_STEPS = ("all_words", "any_word")
"""A chunk must hold all words of the query; where none does, any of its words."""


class Id(msgspec.Struct, frozen=True):
    doc_id: str
    chunk_id: str


async def by_words(connection: Connection, query: Query) -> Found:
    """The k chunks of the highest text rank x decay, ties by doc_id, then chunk_id."""
    policy = await policies.of(connection, query.namespace)
    values = _values(query, policy.half_life_seconds)
    found: list[hits.Hit] = []
    for wanted in _STEPS:
        statement = statements.words(
            query.filters,
            wanted,
            per_document=query.per_document,
            similar=query.min_similarity is not None,
        )
        found = await hits.fetch(connection, statement, values)
        # A page behind the last hit is empty, and no reason for the next step.
        if found or (
            query.offset
            and await hits.fetch(connection, statement, values | {"offset": 0, "page": 1})
        ):
            break
    if found and policy.semantic:
        found = await hits.with_marks(connection, query.namespace, found)
    return Found(found, len(found), plan.Words())


async def pool(connection: Connection, query: Query, half_life: float | None) -> list[Id]:
    """The POOL best by text rank x decay, best first."""
    values = _values(query, half_life) | {"pool": plan.POOL}
    for wanted in _STEPS:
        statement = statements.words_pool(query.filters, wanted)
        if found := await rows.every(connection, Id, statement, values):
            return found
    return []


def _values(query: Query, half_life: float | None) -> dict[str, Any]:
    return {
        "namespace": query.namespace,
        "text": query.text,
        "shown": shown_words(query.text),
        "half_life": half_life,
        "k": query.k,
        "page": query.page,
        "offset": query.offset,
        "min_similarity": query.min_similarity,
        "at": query.at,
        **parameters(query.filters),
    }


def shown_words(text: str) -> list[str]:
    """The words of a query that a rationale may name, as they stand there."""
    return list(dict.fromkeys(re.findall(r"\w+", text)))[:SHOWN_WORDS]
