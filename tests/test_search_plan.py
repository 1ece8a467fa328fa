"""Each decision of a search, without a database: which plan, which shortcut, which next step."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from indexd.store.filters import Filters
from indexd.store.namespaces import Facts
from indexd.store.search import NamespaceMemory, Query, Tuning, steering
from indexd.store.search.age_histogram import Histogram
from indexd.store.search.bounds import NO_HALF_LIFE
from indexd.store.search.memory import FAILURES
from indexd.store.search.plan import (
    POOL,
    Hybrid,
    Nearest,
    Plan,
    ProbeSweep,
    Scan,
    choose,
    needs_estimate,
    shortcut,
)
from indexd.store.search.steering import Deepen, Done, Job, Progress, Rescan, Sweep

AT = datetime(2026, 6, 1, tzinfo=UTC)
DAY = 86_400.0
VECTOR = np.array([1, 0], np.float32)
QUERY = Query(namespace="ns", mode="vector", k=10, at=AT, vector=VECTOR)
LARGE = Facts("ns", 2, 100_000, None, indexed=True)
SMALL = replace(LARGE, chunks=500, indexed=False)
FADING = replace(LARGE, half_life_seconds=30 * DAY)
TAGGED = replace(QUERY, filters=Filters(tags=["a"]))


def plan_of(query: Query, facts: Facts, matching: float | None = None) -> Plan:
    return choose(query, facts, facts.chunks if matching is None else matching, Tuning())


def test_a_namespace_without_an_index_is_scanned() -> None:
    assert plan_of(QUERY, SMALL) == Scan(500)


def test_an_indexed_namespace_is_probed_and_swept() -> None:
    plan = plan_of(QUERY, FADING)
    assert isinstance(plan, ProbeSweep)
    assert plan.matching == 100_000
    assert plan.similar_rows == plan.ef


def test_a_filter_that_few_chunks_pass_is_scanned_and_one_that_many_pass_is_not() -> None:
    assert plan_of(TAGGED, FADING, matching=300) == Scan(300)
    plan = plan_of(TAGGED, FADING, matching=60_000)
    assert isinstance(plan, ProbeSweep)
    assert plan.newest_rows == Tuning().newest_rows_filtered


def test_an_estimate_above_the_size_of_the_namespace_is_not_believed() -> None:
    plan = plan_of(TAGGED, FADING, matching=1e9)
    assert isinstance(plan, ProbeSweep)
    assert plan.matching == 100_000


def test_an_estimate_is_needed_only_for_filters_under_an_index() -> None:
    assert needs_estimate(TAGGED, LARGE)
    assert not needs_estimate(QUERY, LARGE)
    assert not needs_estimate(TAGGED, SMALL)


def test_hybrid_takes_the_pool_by_vector_whatever_k_is() -> None:
    plan = plan_of(replace(QUERY, mode="hybrid", k=1), FADING)
    assert isinstance(plan, Hybrid)
    assert isinstance(plan.vector, ProbeSweep)
    assert plan.vector.ef >= 2 * POOL


@pytest.mark.parametrize(
    ("query", "facts", "kind"),
    [
        (QUERY, SMALL, Scan),
        (QUERY, LARGE, Nearest),
        (QUERY, FADING, type(None)),
        (TAGGED, LARGE, type(None)),
        (QUERY, replace(SMALL, semantic=True), type(None)),
        (replace(QUERY, per_document=True), SMALL, type(None)),
        (replace(QUERY, mode="hybrid"), SMALL, type(None)),
    ],
)
def test_a_shortcut_is_taken_where_one_statement_can_prove_the_answer(
    query: Query, facts: Facts, kind: type
) -> None:
    assert isinstance(shortcut(query, facts, plan_of(query, facts), Tuning()), kind)


def test_the_nearest_are_asked_for_twice_k_and_never_fewer_than_tell_the_dimensionality() -> None:
    for k, rows in ((1, 20), (10, 20), (50, 100)):
        query = replace(QUERY, k=k)
        found = shortcut(query, LARGE, plan_of(query, LARGE), Tuning())
        assert isinstance(found, Nearest)
        assert found.rows == rows


def job(**changed: Any) -> Job:
    plan = ProbeSweep(ef=200, similar_rows=200, newest_rows=200, matching=100_000)
    ages = {NO_HALF_LIFE: Histogram(100_000, tuple(AT.timestamp() - DAY * n for n in (1000, 0)))}
    return replace(Job(QUERY, FADING, plan, Tuning(), ages, slack=1e-3), **changed)


def progress(**changed: Any) -> Progress:
    seen = Progress(
        bound=0.5,
        fall=0.01,
        asked=200,
        similar=200,
        max_scan_tuples=None,
        swept={NO_HALF_LIFE: AT.timestamp() - DAY},
        slice_rows=4_000,
        scored=400,
        kth=0.45,
    )
    return replace(seen, **changed)


def test_a_kth_score_above_the_bound_ends_the_search_and_one_equal_to_it_does_not() -> None:
    assert steering.next_step(job(), progress(kth=0.502)) == Done()
    bound = 0.5 + 1e-3
    assert steering.next_step(job(), progress(kth=bound - 1e-9)) != Done(cut=True)


def test_nothing_bounds_unseen_chunks_below_a_kth_score_of_zero() -> None:
    assert steering.next_step(job(), progress(kth=0.0)) == Rescan()
    assert steering.next_step(job(), progress(kth=-0.1)) == Rescan()
    assert steering.next_step(job(), progress(bound=None)) == Rescan()


def test_a_near_cutoff_is_swept_newest_first() -> None:
    step = steering.next_step(job(), progress(kth=0.3))
    assert isinstance(step, Sweep)
    [slice_] = step.slices
    assert slice_.until == AT.timestamp() - DAY


def test_a_far_cutoff_asks_the_index_for_more_or_scores_everything() -> None:
    cheap_rows = replace(Tuning(), index_row=0.1)
    far = job(facts=replace(FADING, half_life_seconds=300 * DAY), tuning=cheap_rows)
    assert isinstance(steering.next_step(far, progress(kth=0.49)), Deepen)
    dear_rows = replace(Tuning(), index_row=1e6, swept_row=10.0)
    far = replace(far, tuning=dear_rows)
    assert steering.next_step(far, progress(kth=0.2)) == Rescan()


def test_an_index_that_gave_less_than_was_asked_is_not_asked_for_more() -> None:
    cheap_rows = replace(Tuning(), index_row=0.0001)
    far = job(facts=replace(FADING, half_life_seconds=300 * DAY), tuning=cheap_rows)
    assert not isinstance(steering.next_step(far, progress(kth=0.49, similar=50)), Deepen)


def test_under_load_a_search_that_scored_enough_ends_and_says_so() -> None:
    loaded = job(tuning=replace(Tuning(), scored_limit=300))
    assert steering.next_step(loaded, progress(kth=0.3)) == Done(cut=True)


def test_memory_forgets_the_namespace_that_was_not_searched_for_the_longest_time() -> None:
    memory = NamespaceMemory(limit=3)
    for name in ("a", "b", "c"):
        memory.keep(replace(LARGE, namespace=name))
    memory.keep(replace(LARGE, namespace="a"))
    memory.keep(replace(LARGE, namespace="d"))
    assert memory.facts("b", 2) is None
    assert all(memory.facts(name, 2) for name in ("a", "c", "d"))


def test_an_estimate_is_forgotten_once_the_namespace_grew_by_a_tenth() -> None:
    memory = NamespaceMemory()
    memory.keep_matching(LARGE, TAGGED.filters, 70.0)
    assert memory.matching(LARGE, TAGGED.filters) == 70
    assert memory.matching(replace(LARGE, chunks=109_999), TAGGED.filters) == 70
    assert memory.matching(replace(LARGE, chunks=110_001), TAGGED.filters) is None
    assert memory.matching(LARGE, Filters(tags=["b"])) is None


def test_filters_of_one_namespace_do_not_fill_the_memory() -> None:
    memory = NamespaceMemory()
    for n in range(1_000):
        memory.keep_matching(LARGE, Filters(tags=[str(n)]), n)
    assert memory.matching(LARGE, Filters(tags=["999"])) == 999
    assert memory.matching(LARGE, Filters(tags=["0"])) is None


def test_a_proved_shortcut_makes_up_for_failures() -> None:
    memory = NamespaceMemory()
    for _ in range(FAILURES):
        assert memory.may_try_shortcut("ns")
        memory.note_shortcut("ns", proved=False)
    assert not memory.may_try_shortcut("ns")
    memory.note_shortcut("ns", proved=True)
    assert memory.may_try_shortcut("ns")
