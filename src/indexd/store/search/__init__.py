"""The one door to search: a query in, the k best by score = similarity x decay out.

    run           in one statement where that can prove the answer, else in a snapshot
    in_snapshot   facts of the namespace, plan, and its execution

plan.py decides how a search is carried out, statements.py has all SQL, docs/decay.md the proofs.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from indexd import vectors
from indexd.db.pool import Connection, Database
from indexd.store import namespaces, rows
from indexd.store.namespaces import Facts
from indexd.store.search import (
    age_histogram,
    hits,
    hybrid,
    lexical,
    one_statement,
    probe_sweep,
    related,
    statements,
)
from indexd.store.search import plan as plans
from indexd.store.search.bounds import epsilon
from indexd.store.search.costs import Tuning
from indexd.store.search.found import Found
from indexd.store.search.memory import AGES_SECONDS, NamespaceMemory
from indexd.store.search.one_statement import Shortcut
from indexd.store.search.plan import Hybrid, Nearest, Plan, ProbeSweep, Scan
from indexd.store.search.query import Mode, Query
from indexd.store.search.steering import Job

__all__ = ["Found", "Mode", "NamespaceMemory", "Query", "Tuning", "in_snapshot", "run"]


async def run(database: Database, memory: NamespaceMemory, query: Query, tuning: Tuning) -> Found:
    """The k best chunks of the namespace, highest score first; none where it does not exist.

    Ties go by doc_id, then chunk_id. Reads one snapshot, takes no lock. Raises DimensionMismatch,
    ModelMismatch, EmbedderUnavailable where our embedder made a vector of another dimension,
    NotFound for a document that related_to names and that is not there, DatabaseUnavailable.
    """
    if shortcut := remembered(memory, query, tuning):
        sent = one_statement.statement(shortcut, tuning)
        answered = await database.read_once(sent.settings, sent.text, sent.values)
        told = [one_statement.ShortcutRow.of(row) for row in answered]
        if found := learned(memory, shortcut, told, tuning):
            return _above(query.min_score, found)
    found = await database.read(lambda connection: in_snapshot(connection, memory, query, tuning))
    return _above(query.min_score, found)


def _above(min_score: float | None, found: Found) -> Found:
    """Without the hits of a lower score, which are the last ones."""
    if min_score is None:
        return found
    return replace(found, hits=[hit for hit in found.hits if hit.score >= min_score])


def remembered(memory: NamespaceMemory, query: Query, tuning: Tuning) -> Shortcut | None:
    """How to search in one statement, where enough is remembered of the namespace."""
    if query.vector is None:
        return None
    facts = memory.facts(query.namespace, query.vector.size)
    if facts is None or not query.agrees_with(facts):
        return None
    query = query.passing_over(expired=facts.expired)
    matching: float | None = facts.chunks
    if plans.needs_estimate(query, facts):
        matching = memory.matching(facts, query.filters)
    if matching is None:
        return None
    plan = plans.choose(query, facts, matching, tuning)
    short = plans.shortcut(query, facts, plan, tuning)
    if isinstance(short, Nearest) and not memory.may_try_shortcut(facts.namespace):
        return None
    return Shortcut(query, facts, short) if short else None


def learned(
    memory: NamespaceMemory,
    shortcut: Shortcut,
    rows: Sequence[one_statement.ShortcutRow],
    tuning: Tuning,
) -> Found | None:
    """The answer of a shortcut, if it is one; what it says of the namespace is remembered."""
    if not one_statement.holds(shortcut, rows):
        memory.drop(shortcut.facts)
        return None
    found = one_statement.answer(shortcut, rows, tuning)
    if not isinstance(shortcut.plan, Scan):
        memory.note_shortcut(shortcut.facts.namespace, proved=found is not None)
    return found


async def in_snapshot(
    connection: Connection, memory: NamespaceMemory, query: Query, tuning: Tuning
) -> Found:
    """The same in the caller's snapshot, by several statements if need be."""
    if query.related_to is not None:
        query = await related.with_vector(connection, query)
        if query.vector is None:
            return Found([], 0)  # nothing is near a document without vectors
    found = await _found(connection, memory, query, tuning)
    if query.include_vectors:
        vectored = await hits.with_vectors(connection, query.namespace, found.hits)
        found = replace(found, hits=vectored)
    return found


async def _found(
    connection: Connection, memory: NamespaceMemory, query: Query, tuning: Tuning
) -> Found:
    namespace, unexpired_at = query.namespace, query.unexpired_at
    if query.vector is None:
        expired = await namespaces.any_expired(connection, namespace, unexpired_at)
        return await lexical.by_words(connection, query.passing_over(expired=expired))
    facts = await namespaces.facts(connection, namespace, query.vector.size, unexpired_at)
    if facts is None:
        return Found([], 0)
    query = query.passing_over(expired=facts.expired)
    if facts.dimension is None:
        return await _without_vectors(connection, query, facts)
    check(query, facts)
    memory.keep(facts)
    matching = float(facts.chunks)
    if plans.needs_estimate(query, facts):
        matching = await _matching(connection, memory, query, facts)
    plan = plans.choose(query, facts, matching, tuning)
    found = await carry_out(connection, memory, query, facts, plan, tuning)
    if facts.semantic:
        marked = await hits.with_marks(connection, facts.namespace, found.hits)
        found = replace(found, hits=marked, semantic=True)
    return found


async def _without_vectors(connection: Connection, query: Query, facts: Facts) -> Found:
    """Search a namespace that holds texts alone: by words, where they may be asked for."""
    if query.mode == "hybrid":
        ranked = await hybrid.fused(connection, query, facts, [])
        return Found(ranked, len(ranked), Hybrid(Scan(0)))
    if query.is_auto and query.text.strip():
        return await lexical.by_words(connection, query)
    return Found([], 0)


def check(query: Query, facts: Facts) -> None:
    """Raises an error where the query's vector cannot be compared with the namespace's."""
    assert query.vector is not None  # noqa: S101 (a search by vector has one)
    if facts.model and query.model and not query.agrees_with(facts):
        raise vectors.other_model("query", facts.namespace, facts.model, query.model)
    if facts.dimension is not None and facts.dimension != query.vector.size:
        if query.embedded_here:
            raise vectors.embedder_mismatch(facts.namespace, facts.dimension, query.vector.size)
        raise vectors.mismatch("query", facts.dimension, query.vector.size)


async def carry_out(
    connection: Connection,
    memory: NamespaceMemory,
    query: Query,
    facts: Facts,
    plan: Plan,
    tuning: Tuning,
) -> Found:
    """Search by a plan of `plans.choose`, in the caller's snapshot."""
    match plan:
        case Scan(rows):
            statement = statements.scan(
                query.filters,
                per_document=query.per_document,
                similar=query.min_similarity is not None,
            )
            values = statements.values_of(query, facts)
            return Found(await hits.fetch(connection, statement, values), int(rows), plan)
        case ProbeSweep():
            assert query.vector is not None  # noqa: S101 (checked by the caller)
            ages = await _ages(connection, memory, facts.namespace)
            job = Job(query, facts, plan, tuning, ages, epsilon(query.vector))
            return await _swept(connection, job)
        case Hybrid(by_vector):
            pool = replace(query, k=plans.POOL, offset=0)
            near = await carry_out(connection, memory, pool, facts, by_vector, tuning)
            fused = await hybrid.fused(connection, query, facts, near.hits)
            cosines = {(hit.doc_id, hit.chunk_id): hit.similarity for hit in near.hits}
            return replace(near, hits=fused, plan=plan, cosines=cosines)
    raise AssertionError(plan)


async def _swept(connection: Connection, job: Job) -> Found:
    best = await probe_sweep.best_keys(connection, job)
    keys = best.keys()[job.query.offset :]
    values = statements.values_of(
        job.query,
        job.facts,
        offset=0,
        chosen_doc_ids=[key.doc_id for key in keys],
        chosen_ordinals=[key.ordinal for key in keys],
    )
    found = await hits.fetch(connection, statements.chosen(), values)
    degraded = [*job.tuning.degraded, *(["sweep"] if best.cut else [])]
    return Found(found, best.scored, job.plan, degraded)


async def _matching(
    connection: Connection, memory: NamespaceMemory, query: Query, facts: Facts
) -> float:
    """About how many chunks pass the filters: the planner's estimate, or a sample's."""
    known = memory.matching(facts, query.filters)
    if known is not None:
        return known
    ages = await _ages(connection, memory, facts.namespace) if query.filters.is_opaque else {}
    if ages:
        estimate = await _sampled(connection, query, facts, ages)
    else:
        values = statements.values_of(query, facts)
        [plan] = await rows.value(connection, statements.estimate(query.filters), values)
        estimate = float(plan["Plan"]["Plan Rows"])
    memory.keep_matching(facts, query.filters, estimate)
    return estimate


SAMPLED_MOMENTS = 64
"""Moments in the life of a namespace from each of which on chunks are sampled."""

SAMPLED_EACH = 16
"""Chunks sampled from each moment on."""


async def _sampled(
    connection: Connection, query: Query, facts: Facts, ages: age_histogram.Ages
) -> float:
    """About how many chunks pass the filters, counted on some of them."""
    moments = age_histogram.moments(ages, SAMPLED_MOMENTS)
    values = statements.values_of(
        query,
        facts,
        since=[datetime.fromtimestamp(moment, UTC) for moment in moments],
        each=SAMPLED_EACH,
    )
    share = await rows.value(connection, statements.sample(query.filters), values)
    # Where none of them passes, there may still be one of about as many more.
    return facts.chunks * max(share or 0.0, 1 / (SAMPLED_MOMENTS * SAMPLED_EACH))


async def _ages(
    connection: Connection, memory: NamespaceMemory, namespace: str
) -> age_histogram.Ages:
    """The age histogram, at most AGES_SECONDS old; empty where nobody counted yet."""
    known, now = memory.of(namespace), time.monotonic()
    if known.ages_asked is not None and now - known.ages_asked < AGES_SECONDS:
        return known.ages
    counted_at = await age_histogram.counted_at(connection, namespace)
    if counted_at is None:
        return {}
    if counted_at != known.ages_counted_at:
        known.ages = await age_histogram.read(connection, namespace)
        known.ages_counted_at = counted_at
    known.ages_asked = now
    return known.ages
