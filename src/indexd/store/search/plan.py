"""How a search is carried out: pure decisions, from what is known of the namespace.

    Words        chunks by their words                              mode lexical
    Scan         score every chunk that matches                     no index, or few match
    Nearest      the k nearest by the index, in one statement       nothing fades, nothing filtered
    ProbeSweep   probe, bound, sweep                                everything else with an index
    Hybrid       Words and a vector plan, fused                     mode hybrid

`choose` gives the plan of a search in a snapshot. `shortcut` gives one for a single statement,
which may fail to prove its answer; then the plan in a snapshot is carried out.
"""

import msgspec

from indexd.store.namespaces import Facts
from indexd.store.search import costs
from indexd.store.search.costs import Tuning
from indexd.store.search.query import Query

POOL = 200
"""Chunks of each side that mode hybrid ranks, taken under decay: a short list that is faded
afterwards holds almost none of the best."""

FEWEST_NEAREST_ROWS = 20
"""Neighbours below which the estimate of the local dimensionality is too noisy."""


class Words(msgspec.Struct, frozen=True):
    """Chunks that hold the query's words."""


class Scan(msgspec.Struct, frozen=True):
    """Score every chunk that matches, about `rows`: exact by definition."""

    rows: float


class Nearest(msgspec.Struct, frozen=True):
    """The `rows` nearest of `ef` candidates of the index; the farthest proves the k best."""

    ef: int
    rows: int


class ProbeSweep(msgspec.Struct, frozen=True):
    """Probe `similar_rows` of `ef` candidates and `newest_rows`; about `matching` chunks match."""

    ef: int
    similar_rows: int
    newest_rows: int
    matching: float


class Hybrid(msgspec.Struct, frozen=True):
    """The POOL best by words and the POOL best by vector, fused."""

    vector: Scan | ProbeSweep


Plan = Words | Scan | Nearest | ProbeSweep | Hybrid


def needs_estimate(query: Query, facts: Facts) -> bool:
    """Whether the choice depends on how many chunks pass the filters."""
    return facts.indexed and bool(query.filters.asked)


def choose(query: Query, facts: Facts, matching: float, tuning: Tuning) -> Plan:
    """The plan of a search with a vector; `matching` estimates the chunks that pass the filters."""
    if query.mode == "hybrid":
        return Hybrid(_by_vector(query, facts, matching, tuning))
    return _by_vector(query, facts, matching, tuning)


def _by_vector(query: Query, facts: Facts, matching: float, tuning: Tuning) -> Scan | ProbeSweep:
    if not facts.indexed:
        return Scan(facts.chunks)
    k = POOL if query.mode == "hybrid" else query.k
    # Fewer than 2k candidates hardly ever prove the k-th.
    ef = min(max(tuning.first_ef(facts.chunks), 2 * k), tuning.ef_max)
    if not query.filters:
        return ProbeSweep(ef, ef, tuning.newest_rows, facts.chunks)
    matching = min(matching, facts.chunks)
    if costs.prefers_scan(matching, facts, query.filters, k, tuning):
        return Scan(matching)
    return ProbeSweep(ef, costs.similar_rows(k), tuning.newest_rows_filtered, matching)


def shortcut(query: Query, facts: Facts, plan: Plan, tuning: Tuning) -> Scan | Nearest | None:
    """The same answer in one statement, where that can be.

    None where more has to be read (marks of irrelevance, vectors), where the answer is another one
    than the k best chunks, and where nothing bounds unseen chunks by their cosine alone.
    """
    if query.mode != "vector" or query.per_document or facts.semantic:
        return None
    if query.offset or query.include_vectors or query.min_similarity is not None:
        return None
    if isinstance(plan, Scan):
        return plan
    if query.filters or facts.half_life_seconds is not None:
        return None
    return Nearest(tuning.first_ef(facts.chunks), max(2 * query.k, FEWEST_NEAREST_ROWS))


def describe(plan: Plan) -> str:
    """The plan in a sentence, for people."""
    match plan:
        case Words():
            return "words: rank the chunks that hold one of the words by BM25 and decay"
        case Scan(rows):
            return f"scan: score all of about {rows:,.0f} chunks that match"
        case Nearest(ef, rows):
            return (
                f"nearest: the {rows:,} nearest of {ef:,} candidates of the index, in one statement"
            )
        case ProbeSweep():
            return (
                f"probe and sweep: {plan.similar_rows:,} similar chunks of {plan.ef:,} candidates "
                f"of the index and the {plan.newest_rows:,} newest, then the ages in which one of "
                f"about {plan.matching:,.0f} that match may still be among the best"
            )
        case Hybrid(vector):
            return f"hybrid: the {POOL} best by words, fused with the {POOL} of {describe(vector)}"
