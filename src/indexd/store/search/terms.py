"""The words of a query as the terms of BM25, and what each weighs; docs/words.md has the method."""

import math
import re
from collections.abc import Sequence

import msgspec

from indexd.db.pool import Connection
from indexd.store import rows

MOST_WORDS = 64
"""Words of a query that count: the weightiest."""

NAMED_WORDS = 200
"""Words of a query up to which a rationale names them as they stand there, else their stems."""

READ = 20_000
"""Characters of a query that are read for its words."""

FEW_CHUNKS = 2_000
"""Chunks of a namespace below which each search counts the chunks of its terms itself."""

SATURATION = 2.2
"""k1 + 1: no impact of a term reaches it."""

DIMENSIONS = 2**29
"""Of a sparsevec of impacts: the numbers of terms are hashes of 29 bits."""


class CountedStem(msgspec.Struct, frozen=True):
    """A stem of a word, in how many of `total` chunks it is; `lexeme` None of a query without.

    `unweighed` says that chunks are there whose words are not weighed yet.
    """

    word: str
    lexeme: str | None
    share: float
    term: int
    chunks: int
    total: int
    unweighed: bool


class Term(msgspec.Struct, frozen=True):
    """What a query asks for: `weight` is idf, or a part of it for one of two stems of a word."""

    word: str
    lexeme: str
    number: int
    chunks: int
    weight: float


class Asked(msgspec.Struct, frozen=True):
    """The terms of a query, the weightiest first, in a namespace of `total` chunks."""

    terms: tuple[Term, ...]
    total: int
    unweighed: bool

    @property
    def weight(self) -> float:
        return sum(term.weight for term in self.terms)

    @property
    def numbers(self) -> list[int]:
        return [term.number for term in self.terms]

    @property
    def vector(self) -> str:
        """A sparsevec whose inner product with the impacts of a chunk is its similarity, 0..1."""
        parts = (f"{term.number}:{self._scaled(term)!r}" for term in self._by_number())
        return f"{{{','.join(parts)}}}/{DIMENSIONS}"

    @property
    def vectors(self) -> list[str]:
        """The same of each term alone."""
        return [f"{{{term.number}:{self._scaled(term)!r}}}/{DIMENSIONS}" for term in self.terms]

    def rest(self, taken: int) -> float:
        """Upper bound of the similarity of a chunk that holds none of the first terms."""
        left = sum(term.weight for term in self.terms[taken:])
        return left / self.weight * (1 + 1e-5)  # float32 rounds each product

    def _scaled(self, term: Term) -> float:
        return term.weight / (SATURATION * self.weight)

    def _by_number(self) -> list[Term]:
        return sorted(self.terms, key=lambda term: term.number)


_ASKED = """asked AS MATERIALIZED (
            SELECT said.word, said.place, stem.lexeme, stem.share,
                   indexd.term(%(namespace)s, stem.lexeme) AS term
              FROM unnest(%(words)s::text[]) WITH ORDINALITY AS said (word, place)
             CROSS JOIN LATERAL indexd.lexemes(said.word) AS stem
        )"""

_COUNTED_ONE_BY_ONE = """SELECT term,
                   (
                    SELECT count(*)
                      FROM indexd.chunk_fields
                     WHERE namespace = %(namespace)s
                       AND terms @> ARRAY[distinct_terms.term]
                   ) AS chunks
              FROM (SELECT DISTINCT term FROM asked) AS distinct_terms"""

_COUNTED_AT_ONCE = """SELECT term, count(*) AS chunks
              FROM indexd.chunk_fields
             CROSS JOIN LATERAL unnest(terms) AS term
             WHERE namespace = %(namespace)s
               AND terms && ARRAY(SELECT term FROM asked)
             GROUP BY term"""


def counting(*, stored: bool, at_once: bool) -> str:
    """SQL: the stems of a query, and in how many chunks each is.

    By what the keeper `stored`, or counted here, for many words `at_once`.
    """
    if stored:
        counts = """SELECT term, chunks
              FROM indexd.term_counts
             WHERE namespace = %(namespace)s
               AND term = ANY(ARRAY(SELECT term FROM asked))"""
        total = "words_chunks"
    else:
        counts = _COUNTED_AT_ONCE if at_once else _COUNTED_ONE_BY_ONE
        total = "chunks"
    return f"""/* indexd:search.terms */
        WITH {_ASKED},
        counted AS MATERIALIZED (
            {counts}
        )
        SELECT asked.word, asked.lexeme, asked.share, asked.term,
               coalesce(counted.chunks, 0) AS chunks,
               namespaces.{total} AS total,
               EXISTS (
                SELECT 1
                  FROM indexd.chunk_fields
                 WHERE namespace = %(namespace)s
                   AND lex IS NULL
               ) AS unweighed
          FROM asked
          LEFT JOIN counted USING (term)
          JOIN indexd.namespaces
            ON namespaces.namespace = %(namespace)s
         ORDER BY asked.place, asked.lexeme COLLATE "C"
    """


IS_COUNTED = """
    /* indexd:search.is_counted */
    SELECT words_counted_at IS NOT NULL AND chunks >= %(few)s
      FROM indexd.namespaces
     WHERE namespace = %(namespace)s
"""


async def asked(connection: Connection, namespace: str, text: str) -> Asked:
    """The terms of a query; none where the namespace is unknown or no word counts."""
    said = list(dict.fromkeys(text[:READ].split()))
    words = said if len(said) <= NAMED_WORDS else [text[:READ]]
    values = {"namespace": namespace, "few": FEW_CHUNKS, "words": words}
    stored = await rows.value(connection, IS_COUNTED, values)
    if stored is None:
        return Asked((), 0, unweighed=False)
    statement = counting(stored=stored, at_once=words is not said)
    found = await rows.every(connection, CountedStem, statement, values)
    return weighed(found, named=words is said)


def weighed(found: Sequence[CountedStem], *, named: bool) -> Asked:
    """What each stem weighs; of two with the same number the first is named."""
    terms: dict[int, Term] = {}
    for one in found:
        lexeme = one.lexeme or ""
        weight = one.share * idf(one.chunks, one.total)
        known = terms.get(one.term)
        if known is None:
            word = trimmed(one.word) if named else lexeme
            terms[one.term] = Term(word, lexeme, one.term, one.chunks, weight)
        elif weight > known.weight:
            terms[one.term] = msgspec.structs.replace(known, weight=weight)
    counting_words: set[str] = set()
    weightiest: list[Term] = []
    for term in sorted(terms.values(), key=lambda term: (-term.weight, term.number)):
        if term.word in counting_words or len(counting_words) < MOST_WORDS:
            counting_words.add(term.word)
            weightiest.append(term)
    total = max((one.total for one in found), default=0)
    return Asked(tuple(weightiest), total, any(one.unweighed for one in found))


def idf(chunks: int, total: int) -> float:
    """Of a term that is in this many of all chunks."""
    return math.log1p((max(total, chunks) - chunks + 0.5) / (chunks + 0.5))


def trimmed(word: str) -> str:
    """A word of a query without the punctuation around it."""
    return re.sub(r"^\W+|\W+$", "", word) or word
