"""The application, put together: the only place that knows all its parts."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import datetime
from functools import partial

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from psycopg import AsyncCursor

from indexd import __version__, embedders, keeper, policy, pulse, tracing
from indexd.access import OPEN
from indexd.api import (
    auth,
    documents,
    embed,
    forget,
    health,
    lifecycle,
    openapi,
    problems,
    retention,
    search,
    stats,
)
from indexd.api.in_flight import InFlight
from indexd.api.request_log import RequestLog
from indexd.background import beside
from indexd.budget import Budget
from indexd.db import Database, admission_of
from indexd.errors import ConfigurationError, DatabaseUnavailable
from indexd.exposures import Exposures
from indexd.keyring import Keyring
from indexd.metrics import Metrics
from indexd.service import Service
from indexd.service import now as clock
from indexd.settings import Settings
from indexd.store import policies
from indexd.store.tuning import Tuning


def create_app(
    settings: Settings, now: Callable[[], datetime] = clock, *, loads_policies: bool = True
) -> Litestar:
    """Settings must name a database; the pool opens when the application starts.

    The policies of the file are put in force then, unless someone else did so.
    """
    if settings.database_url is None:
        raise ConfigurationError("database_url: expected the URL of a PostgreSQL database")
    url = settings.database_url
    tuning = Tuning(ef=settings.search_ef, max_scan_tuples=settings.search_max_scan_tuples)
    metrics = Metrics(settings.metrics_namespaces)
    admission = admission_of(
        settings, metrics.pool_wait.observe, lambda why: metrics.rejected.labels(why).inc()
    )
    spans = tracing.tracer() if settings.tracing == "on" else None
    cursor = tracing.traced_cursor(spans[0]) if spans else AsyncCursor
    database = Database(url, settings, admission, cursor)
    budget = Budget(settings.budget_ms / 1000, degrade=settings.budget_degrade == "on")
    embedder = embedders.of(settings, metrics)
    exposures = Exposures(metrics, settings.relevance_limit)
    service = Service(settings, database, metrics, tuning, budget, exposures, now, embedder)
    keyring = Keyring(url, database) if settings.authenticates else None
    wanted = policy.load(settings.policies_path) if loads_policies else None

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with (
            database,
            beside(partial(keeper.keep, url, settings, metrics.index_builds.inc)),
            beside(keyring.follow) if keyring else nullcontext(),
            embedder or nullcontext(),
            beside(partial(pulse.beat, service)),
            beside(partial(pulse.follow_schema, database)),
        ):
            if wanted is not None:
                with suppress(DatabaseUnavailable):  # /readyz tells; the next start loads them
                    await database.write(partial(policies.apply, policies=wanted))
            async with exposures.flushed(database, now, settings.relevance_flush_seconds):
                yield
        if spans is not None:
            spans[1].shutdown()

    return Litestar(
        route_handlers=[
            documents.upsert,
            documents.bulk,
            documents.delete,
            embed.embed_text,
            search.search,
            search.related,
            stats.stats,
            retention.retention,
            retention.retention_preview,
            retention.decay_preview,
            forget.forget,
            forget.audit,
            lifecycle.document,
            lifecycle.lifecycle,
            lifecycle.irrelevant,
            lifecycle.feedback,
            health.healthz,
            health.readyz,
            health.metrics,
        ],
        dependencies={
            "service": Provide(lambda: service, sync_to_thread=False),
            "access": Provide(auth.access_of, sync_to_thread=False),
        },
        guards=[auth.guard(settings, keyring, metrics)],
        exception_handlers={Exception: problems.answer},
        lifespan=[lifespan],
        middleware=[
            *([tracing.RequestSpans(spans[0])] if spans else []),
            RequestLog(metrics),
            InFlight(settings.max_requests, admission, metrics),
        ],
        openapi_config=OpenAPIConfig(
            title="indexd",
            version=__version__,
            description="A long-term memory for agents and tools that forgets on purpose.",
            render_plugins=[openapi.PlainPage()],
            openapi_router=Router(
                "/schema",
                route_handlers=[],
                opt=auth.scope(OPEN, others="-"),
                include_in_schema=False,
                after_request=openapi.other_pages,
            ),
        ),
        request_max_body_size=settings.max_body_bytes,
        logging_config=None,
    )
