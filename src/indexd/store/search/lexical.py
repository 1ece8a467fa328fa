"""Finding chunks by their words, with PostgreSQL's full text search in German and English."""

import re
from datetime import datetime
from typing import Any

from indexd.db import Connection
from indexd.store import policies
from indexd.store.filters import Filters, matches, parameters
from indexd.store.relevance import with_marks
from indexd.store.search.hits import Hit, best

SHOWN_WORDS = 32
"""So many words of a query are looked at for a hit's rationale."""

# The rank counts how many of the words stand there and how often; 1 divides it by the logarithm
# of the text's length, 32 scales it into 0..1.
_CANDIDATES = """
    SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
           ts_rank(words, indexd.{wanted}(%(query)s), 1 | 32)::float8 AS similarity
      FROM indexd.chunks
     WHERE namespace = %(namespace)s
       AND words @@ indexd.{wanted}(%(query)s)
       AND {matches}
"""

MATCHED_WORDS = """ARRAY(
    SELECT word
      FROM unnest(%(shown)s::text[]) WITH ORDINALITY AS shown (word, place)
     WHERE chunk.words @@ indexd.all_words(word)
     ORDER BY place
)"""


async def by_words(
    connection: Connection,
    namespace: str,
    query: str,
    *,
    k: int,
    filters: Filters,
    at: datetime,
) -> list[Hit]:
    """The k chunks of the highest text rank x decay, ties by doc_id, then chunk_id.

    A chunk must hold all words of the query; where none does, any of its words.
    """
    policy = await policies.of(connection, namespace)
    values: dict[str, Any] = {
        "namespace": namespace,
        "query": query,
        "shown": shown_words(query),
        "half_life": policy.half_life_seconds,
        "k": k,
        "at": at,
        **parameters(filters),
    }
    for matching in candidates(filters):
        if found := await best(connection, matching, values, words=MATCHED_WORDS):
            return await with_marks(connection, namespace, found) if policy.semantic else found
    return []


def candidates(filters: Filters) -> list[str]:
    """Chunks with all words of `query`, and those with any, for where there are no such."""
    return [
        _CANDIDATES.format(wanted=wanted, matches=matches(filters))
        for wanted in ("all_words", "any_word")
    ]


def shown_words(query: str) -> list[str]:
    """The words of a query that MATCHED_WORDS looks at, as they stand there."""
    return list(dict.fromkeys(re.findall(r"\w+", query)))[:SHOWN_WORDS]
