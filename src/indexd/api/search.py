"""Routes that find."""

import time
from typing import Annotated

import structlog
from litestar import post
from litestar.di import NamedDependency
from litestar.params import Body

from indexd.api import openapi
from indexd.api.openapi import example
from indexd.api.parse import search_from
from indexd.api.results import result_from
from indexd.api.structs import SearchIn, SearchOut
from indexd.api.wire import Json
from indexd.service import Service
from indexd.store import search as store


@post("/index/search", dto=Json[SearchIn], return_dto=None, status_code=200, operation_id="Search")
async def search(
    data: Annotated[SearchIn, Body(examples=example(openapi.SEARCH))],
    service: NamedDependency[Service],
) -> SearchOut:
    """Find the k chunks of the highest score, by meaning or by their words."""
    started = time.perf_counter()
    wanted = search_from(data, max_k=service.settings.max_k)
    structlog.contextvars.bind_contextvars(namespace=wanted.namespace)
    at = service.now()
    found = await service.database.read(
        lambda connection: store.search(connection, wanted, at=at, tuning=service.tuning)
    )
    results = [result_from(hit, wanted, include_weights=data.include_weights) for hit in found.hits]
    elapsed = time.perf_counter() - started
    service.metrics.queries.inc()
    service.metrics.decays.inc(found.scored)
    service.metrics.query_duration.observe(elapsed)
    return SearchOut(
        results=results,
        mode=wanted.mode,
        latency_ms=round(elapsed * 1000, 3),
        budget_ms=service.settings.budget_ms,
    )
