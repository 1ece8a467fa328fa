"""What a process looks at every second: the budget, the gauges of its pool, and the schema."""

import asyncio
from contextlib import suppress

import psycopg
import structlog

from indexd.db import Database
from indexd.errors import DatabaseUnavailable
from indexd.service import Service

log = structlog.get_logger()

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


async def follow_schema(database: Database) -> None:
    """A pipeline may migrate while this runs; the log says when the schema ceases to fit."""
    while True:
        before = database.unfit
        with suppress(DatabaseUnavailable, psycopg.Error):
            await database.look_at_schema()
        if database.unfit != before:
            log.warning("the schema changed", refused=database.unfit)
        await asyncio.sleep(SECONDS)
