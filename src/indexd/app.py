"""The application, put together: the only place that knows all its parts."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import datetime

from litestar import Litestar
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig

from indexd import __version__, embedders, keeper, policy
from indexd.api import (
    documents,
    embed,
    forget,
    health,
    lifecycle,
    problems,
    retention,
    search,
    stats,
)
from indexd.api.openapi import PlainPage
from indexd.api.request_log import RequestLog
from indexd.db import Database
from indexd.errors import ConfigurationError, DatabaseUnavailable
from indexd.exposures import Exposures
from indexd.metrics import Metrics
from indexd.service import Service
from indexd.service import now as clock
from indexd.settings import Settings
from indexd.store import policies
from indexd.store.probe_sweep import Tuning


def create_app(settings: Settings, now: Callable[[], datetime] = clock) -> Litestar:
    """Settings must name a database; the pool opens when the application starts."""
    if settings.database_url is None:
        raise ConfigurationError("database_url: expected the URL of a PostgreSQL database")
    url = settings.database_url
    tuning = Tuning(ef=settings.search_ef, max_scan_tuples=settings.search_max_scan_tuples)
    metrics = Metrics()
    embedder = embedders.of(settings, metrics)
    exposures = Exposures(metrics, settings.relevance_limit)
    service = Service(settings, Database(url, settings), metrics, tuning, exposures, now, embedder)
    wanted = policy.load(settings.policies_path)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with service.database, keeper.running(url, settings), embedder or nullcontext():
            with suppress(DatabaseUnavailable):  # /readyz tells; the next start loads them
                await service.database.write(lambda connection: policies.apply(connection, wanted))
            async with exposures.flushed(service.database, now, settings.relevance_flush_seconds):
                yield

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
        dependencies={"service": Provide(lambda: service, sync_to_thread=False)},
        exception_handlers={Exception: problems.answer},
        lifespan=[lifespan],
        middleware=[RequestLog()],
        openapi_config=OpenAPIConfig(
            title="indexd",
            version=__version__,
            description="A long-term memory for agents and tools that forgets on purpose.",
            render_plugins=[PlainPage()],
        ),
        request_max_body_size=settings.max_body_bytes,
        logging_config=None,
    )
