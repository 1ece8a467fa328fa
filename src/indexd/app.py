"""Creates the application. This is the only module that imports all its parts."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from functools import partial

import structlog
from litestar import Litestar
from litestar.di import Provide
from psycopg import AsyncCursor

from indexd import embedders, gauges, policy
from indexd.api import auth, openapi, problems
from indexd.api.host_check import HostCheck
from indexd.api.in_flight import InFlight, arrival
from indexd.api.request_log import RequestLog
from indexd.api.routes import (
    documents,
    embed,
    forgetting,
    health,
    library,
    lifecycle,
    retention,
    search,
    stats,
)
from indexd.background import index_keeper
from indexd.background.exposure_buffer import ExposureBuffer
from indexd.background.key_cache import KeyCache
from indexd.clock import now as clock
from indexd.context import Service
from indexd.db.pool import Database, admission_of
from indexd.errors import ConfigurationError, DatabaseUnavailable
from indexd.load.large_work import LargeWork
from indexd.load.latency_budget import LatencyBudget
from indexd.settings import Settings
from indexd.store import policies
from indexd.store.search import NamespaceMemory, Tuning
from indexd.supervised import run_in_background
from indexd.telemetry import logs, tracing
from indexd.telemetry.metrics import Metrics

log = structlog.get_logger()


def create_app(
    settings: Settings, now: Callable[[], datetime] = clock, *, loads_policies: bool = True
) -> Litestar:
    """Create the application. The settings must name a database.

    When the application starts, it opens the pool. With `loads_policies` it also applies the
    policies of the file; `indexd serve` applies them itself, before it starts the workers.
    """
    if settings.database_url is None:
        raise ConfigurationError("database_url: expected the URL of a PostgreSQL database")
    url = settings.database_url
    maintenance_url = settings.database_direct_url or url
    tuning = Tuning(ef=settings.search_ef, max_scan_tuples=settings.search_max_scan_tuples)
    metrics = Metrics(settings.metrics_namespaces)
    admission = admission_of(
        settings,
        metrics.pool_wait.observe,
        lambda why: metrics.rejected.labels(why).inc(),
        logs.tell_overload,
    )
    spans = tracing.tracer() if settings.tracing == "on" else None
    cursor = tracing.traced_cursor(spans[0]) if spans else AsyncCursor
    database = Database(url, settings, admission, cursor)
    budget = LatencyBudget(settings.budget_ms / 1000, degrade=settings.budget_degrade == "on")
    embedder = embedders.of(settings, metrics)
    exposures = ExposureBuffer(metrics, settings.relevance_limit)
    work = LargeWork()
    service = Service(
        settings=settings,
        database=database,
        metrics=metrics,
        full_tuning=tuning,
        memory=NamespaceMemory(),
        budget=budget,
        exposures=exposures,
        now=now,
        embedder=embedder,
        large_work=work,
    )
    key_cache = KeyCache(maintenance_url, database) if settings.authenticates else None
    wanted = policy.load(settings.policies_path) if loads_policies else None

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with (
            database,
            run_in_background(
                partial(index_keeper.keep, maintenance_url, settings, metrics.index_builds.inc, now)
            ),
            run_in_background(key_cache.follow) if key_cache else nullcontext(),
            embedder or nullcontext(),
            run_in_background(partial(gauges.sample_every_second, service)),
            run_in_background(partial(gauges.sample_database_regularly, service)),
            run_in_background(partial(gauges.follow_schema, database)),
        ):
            if wanted is not None:
                try:
                    await database.write(partial(policies.apply, policies=wanted))
                except DatabaseUnavailable as error:  # the next start applies them
                    log.warning("policies are read as they stand", cause=error.message)
            async with exposures.flushed(database, now, settings.relevance_flush_seconds):
                yield
        if spans is not None:
            spans[1].shutdown()

    app = Litestar(
        route_handlers=[
            documents.upsert,
            documents.bulk,
            documents.delete,
            library.get,
            library.list_,
            library.count,
            library.facets,
            library.update,
            library.delete,
            embed.embed_text,
            search.search,
            search.related,
            stats.stats,
            retention.retention,
            retention.retention_preview,
            retention.decay_preview,
            forgetting.forget,
            forgetting.audit,
            lifecycle.document,
            lifecycle.lifecycle,
            lifecycle.irrelevant,
            lifecycle.feedback,
            health.healthz,
            health.readyz,
            health.metrics,
            openapi.page,
            openapi.document_as_json,
        ],
        dependencies={
            "service": Provide(lambda: service, sync_to_thread=False),
            "access": Provide(auth.access_of, sync_to_thread=False),
        },
        guards=[auth.guard(settings, key_cache, metrics)],
        before_request=arrival(settings, work),
        exception_handlers={Exception: problems.answer},
        lifespan=[lifespan],
        middleware=[
            *([tracing.RequestSpans(spans[0])] if spans else []),
            InFlight(settings, admission, metrics),
        ],
        openapi_config=None,  # indexd.api.openapi describes the routes
        request_max_body_size=settings.max_body_bytes,
        logging_config=None,
    )
    # Litestar's middleware only sees requests that match a route; these two must see all requests.
    app.asgi_handler = RequestLog(HostCheck(app.asgi_handler, settings.doors), metrics)
    metrics.know_routes((route.method, route.path) for route in auth.routes(app))
    return app
