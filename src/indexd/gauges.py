"""Samples gauges in the background: latency budget, pool, process, schema, and stored data."""

import asyncio
import shutil
from contextlib import suppress

import psycopg
import structlog

from indexd.background import index_keeper
from indexd.context import Service
from indexd.db.pool import Connection, Database
from indexd.errors import (
    DatabaseFull,
    DatabasePrivilege,
    DatabaseReadOnly,
    DatabaseRefusal,
    DatabaseUnavailable,
    Unavailable,
)
from indexd.load.admission import State
from indexd.store import indexes, watch
from indexd.urls import is_on_this_machine

log = structlog.get_logger()

SECONDS = 1.0
"""Seconds between two samples of the process and two checks of the schema."""

WATCH_SECONDS = 30.0
"""Seconds between two samples of the database. Each costs three queries, two of which use an index.
"""

REFUSALS = tuple(
    refusal.code for refusal in (DatabaseReadOnly, DatabaseFull, DatabasePrivilege, DatabaseRefusal)
)
"""Codes of refused writes: the values of the label `reason`."""


async def sample_every_second(service: Service) -> None:
    """Set the gauges of the process every SECONDS, until this is cancelled."""
    while True:
        sample_process(service)
        await asyncio.sleep(SECONDS)


def sample_process(service: Service) -> None:
    """Set the gauges that need no database: budget, pool, process, embedder, refusals."""
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
    metrics.measure_process()
    if service.embedder is not None:
        provider = service.settings.embedder_provider or "local"
        metrics.embedder_up.labels(provider).set(service.embedder.down is None)
    refusal = database.refusals.last
    for reason in REFUSALS:
        metrics.writes_refused.labels(reason).set(refusal is not None and refusal.code == reason)


async def sample_database_regularly(service: Service) -> None:
    """Set the gauges of the database every WATCH_SECONDS, until this is cancelled.

    If the database does not answer, they keep their values; /readyz reports the failure.
    """
    while True:
        with suppress(Unavailable, psycopg.Error):
            await sample_database(service)
        await asyncio.sleep(WATCH_SECONDS)


async def sample_database(service: Service) -> None:
    """Set the gauges of documents to remove, missing indexes, and free disk space."""
    metrics, settings = service.metrics, service.settings

    async def ask(
        connection: Connection,
    ) -> tuple[list[watch.Due], list[indexes.Namespace], str | None]:
        return (
            await watch.due(connection, at=service.now()),
            await indexes.look(connection),
            await watch.data_directory(connection),
        )

    due, namespaces, folder = await service.database.read(ask, urgent=True)
    metrics.show_due({one.namespace: (one.expired, one.surplus) for one in due})
    metrics.show_expired({one.namespace: one.hidden for one in due})
    earning = indexes.earning(namespaces, index_keeper.rules(settings))
    metrics.indexes_missing.set(sum(one.serving is None for one in earning))
    if folder is not None and is_on_this_machine(settings.database_url or ""):
        # A database behind a local address can run in a container: then its folder is not here.
        with suppress(OSError):
            usage = shutil.disk_usage(folder)
            metrics.disk_free.labels("database").set(usage.free)
            metrics.disk_size.labels("database").set(usage.total)


async def follow_schema(database: Database) -> None:
    """Check every second whether the schema still fits this program, and log each change.

    A deployment may migrate the schema while this process runs.
    """
    while True:
        before = database.unfit
        with suppress(DatabaseUnavailable, psycopg.Error):
            await database.look_at_schema()
        if database.unfit != before:
            log.warning("the schema changed", refused=database.unfit)
        await asyncio.sleep(SECONDS)
