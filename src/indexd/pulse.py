"""What a process looks at every second: the budget, and the gauges of its pool."""

import asyncio

from indexd.admission import State
from indexd.service import Service

SECONDS = 1.0


async def beat(service: Service) -> None:
    while True:
        look(service)
        await asyncio.sleep(SECONDS)


def look(service: Service) -> None:
    budget, metrics, database = service.budget, service.metrics, service.database
    before = budget.times_exceeded
    budget.judge()
    metrics.over_budget.inc(budget.times_exceeded - before)
    metrics.budget_p95.set(budget.p95)
    metrics.budget_seconds.set(budget.seconds)
    metrics.budget_rung.set(budget.rung)
    metrics.pool_size.set(database.pool.get_stats().get("pool_size", 0))
    metrics.pool_busy.set(database.admission.busy)
    metrics.pool_waiting.set(database.admission.waiting)
    for state in State:
        metrics.overload.labels(state.value).set(database.admission.state is state)
