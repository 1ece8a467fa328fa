"""The latency budget: one warning per change, a ladder up and down, and never fewer results."""

import asyncio
import time
from typing import Any

import msgspec
import numpy as np
import psycopg
from structlog.testing import capture_logs

from indexd.app import create_app
from indexd.gauges import sample_process
from indexd.load.latency_budget import CALM, FEWEST, LADDER, STEP, WINDOW, LatencyBudget
from indexd.settings import Settings
from tests.conftest import Client, document, service_of
from tests.test_admission import Clock


def searches(budget: LatencyBudget, seconds: float, number: int = FEWEST) -> None:
    for _ in range(number):
        budget.observe(seconds)
    budget.judge()


def test_the_log_says_once_that_searches_are_slow_and_once_that_they_are_not() -> None:
    clock = Clock()
    budget = LatencyBudget(0.06, degrade=False, clock=clock)
    with capture_logs() as logs:
        for _ in range(3):
            searches(budget, 0.1)
        assert budget.exceeded
        assert (budget.times_exceeded, budget.rung) == (1, 0)
        clock.now += WINDOW + 1
        for _ in range(3):
            searches(budget, 0.01)
        assert not budget.exceeded
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("warning", "searches are over the budget"),
        ("info", "searches are in the budget"),
    ]


def test_a_few_slow_searches_are_no_p95() -> None:
    budget = LatencyBudget(0.06, degrade=True)
    searches(budget, 1.0, FEWEST - 1)
    assert not budget.exceeded
    searches(budget, 0.001, 20 * FEWEST)
    assert not budget.exceeded
    assert budget.rung == 0


def test_the_ladder_goes_up_a_rung_at_a_time_and_down_when_it_is_calm() -> None:
    clock = Clock()
    budget = LatencyBudget(0.06, degrade=True, clock=clock)
    rungs = []
    for _ in range(2 * len(LADDER)):
        searches(budget, 0.1)
        searches(budget, 0.1)
        rungs.append(budget.rung)
        clock.now += STEP
    assert rungs == [1, 2, 3, 3, 3, 3, 3, 3]
    seen = []
    for _ in range(int(8 * CALM)):
        searches(budget, 0.01)
        seen.append(budget.rung)
        clock.now += 1
    assert list(dict.fromkeys(seen)) == [3, 2, 1, 0]
    assert seen.count(2) >= CALM - 1


def test_without_any_search_the_ladder_comes_down_too() -> None:
    clock = Clock()
    budget = LatencyBudget(0.06, degrade=True, clock=clock)
    searches(budget, 0.1)
    assert budget.rung == 1
    clock.now += WINDOW + CALM + 1
    budget.judge()
    assert budget.rung == 0
    assert not budget.exceeded


async def test_a_degraded_answer_says_so_and_has_as_many_results(
    settings: Settings, url: str, rng: np.random.Generator
) -> None:
    vectors = rng.normal(size=(900, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    degrading = msgspec.structs.replace(
        settings, budget_degrade="on", index_threshold=100, keeper_interval_seconds=0.2
    )
    app = create_app(degrading)
    async with Client(app) as client:
        for start in range(0, 900, 300):
            lines = "".join(
                msgspec.json.encode(
                    document(
                        f"d{row:04}",
                        vectors[row],
                        half_life_seconds=86400.0 * 30,
                        ingested_at=f"2026-{1 + row % 9:02}-01T00:00:00Z",
                    )
                ).decode()
                + "\n"
                for row in range(start, start + 300)
            )
            await client.post(
                "/index/bulk", content=lines, headers={"Content-Type": "application/x-ndjson"}
            )
        await asyncio.to_thread(_await_index, url)
        service = service_of(app)
        search = {"namespace": "notes", "embedding": vectors[5].tolist(), "k": 100}
        full = (await client.post("/index/search", json=search)).json()
        assert full["degraded"] == []
        assert len(full["results"]) == 100
        for rung in range(1, len(LADDER)):
            service.budget.rung = rung
            answer = (await client.post("/index/search", json=search)).json()
            assert "index" in answer["degraded"]
            assert len(answer["results"]) == 100
        sample_process(service)
        assert "rung 3" in (await client.get("/readyz")).text
        text = (await client.get("/metrics")).text
        assert "index_degraded_answers_total 3.0" in text
        assert "index_hnsw_builds_total 1.0" in text
        assert "index_budget_rung 3.0" in text
        words = {"namespace": "notes", "query": "x"}
        assert (await client.post("/index/search", json=words)).json()["degraded"] == []
        service.budget.rung = 0


def _await_index(url: str) -> None:

    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(300):
            row: Any = connection.execute(
                "SELECT count(*) FROM pg_index JOIN pg_class ON oid = indexrelid "
                "WHERE relname LIKE 'hnsw%' AND indisvalid"
            ).fetchone()
            if row[0]:
                return
            time.sleep(0.1)
    raise AssertionError("no index was built")


async def test_readyz_shows_a_budget_that_is_exceeded_and_stays_ready(settings: Settings) -> None:
    app = create_app(settings)
    async with Client(app) as client:
        service = service_of(app)
        searches(service.budget, 0.5)
        answer = await client.get("/readyz")
        assert answer.status_code == 200
        assert "budget: exceeded (p95 500.0 ms of 60 ms, rung 0)" in answer.text
