"""What a process looks at every second: the budget, and the gauges of its pool."""

import asyncio

from indexd.errors import DatabaseFull, DatabasePrivilege, DatabaseReadOnly, DatabaseRefusal
from indexd.service import Service

SECONDS = 1.0

REFUSALS = [
    refusal.code for refusal in (DatabaseReadOnly, DatabaseFull, DatabasePrivilege, DatabaseRefusal)
]


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
    refusal = database.refusals.last
    for reason in REFUSALS:
        metrics.writes_refused.labels(reason).set(refusal is not None and refusal.code == reason)
