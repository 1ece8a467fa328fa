"""Routes that find."""

import time

import structlog
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from indexd import embedding
from indexd.access import Access
from indexd.api import examples
from indexd.api.auth import scope
from indexd.api.limits import check_search
from indexd.api.operations import Operation, json_post
from indexd.api.parse import DEFAULT_K, query_from
from indexd.api.results import results_from
from indexd.api.structs import RelatedIn, ResultOut, SearchIn, SearchOut
from indexd.context import Service
from indexd.errors import (
    DimensionMismatch,
    EmbedderUnavailable,
    FilterTooDear,
    InvalidEmbedding,
    MissingQuery,
    ModelMismatch,
    NotFound,
)
from indexd.names import checked_id, namespace_of
from indexd.store import search as store
from indexd.store.filters import in_time
from indexd.store.search import Found, Query
from indexd.store.search.plan import Words


@json_post(
    "/index/search",
    scope("read", others="empty"),
    Operation(
        "Search",
        "Find",
        examples.SEARCH,
        (
            InvalidEmbedding,
            DimensionMismatch,
            MissingQuery,
            ModelMismatch,
            EmbedderUnavailable,
            FilterTooDear,
        ),
    ),
)
async def search(
    data: JSONBody[SearchIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> SearchOut:
    """Find the k chunks of the highest score, by meaning or by their words."""
    check_search(data, service.settings)
    embeds = service.embedder is not None
    query = query_from(data, max_k=service.settings.max_k, embeds=embeds, now=service.now())
    structlog.contextvars.bind_contextvars(namespace=query.namespace)
    query = replace(query, namespace=access.reads(query.namespace))
    query, embedding_ms = await embedding.with_vector(query, service)
    # The embedder's time is measured apart: no search gets faster by looking at less for it.
    started = time.perf_counter()
    with in_time(query.filters):
        found = await store.run(service.database, service.memory, query, service.tuning)
    is_quiet = data.quiet or data.at is not None
    if isinstance(found.plan, Words):
        query = replace(query, mode="lexical")  # in a namespace without vectors
    if query.mode == "vector" and found.semantic and not is_quiet:
        service.exposures.note(query.namespace, found.hits)
    results = results_from(query, found, include_weights=data.include_weights)
    return _answer(results, query, found, started, service, embedding_ms)


@json_post(
    "/index/related",
    scope("read", others="empty"),
    Operation("Related", "Find", examples.RELATED, (NotFound,)),
)
async def related(
    data: JSONBody[RelatedIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> SearchOut:
    """Find the k documents nearest to a document, each by its best chunk."""
    started = time.perf_counter()
    namespace, doc_id = namespace_of(data.namespace), checked_id(data.doc_id, "doc_id")
    structlog.contextvars.bind_contextvars(namespace=namespace, doc_id=doc_id)
    query = Query(
        namespace=access.reads(namespace),
        mode="vector",
        k=min(data.k or DEFAULT_K, service.settings.max_k),
        at=service.now(),
        related_to=doc_id,
        per_document=True,
    )
    found = await store.run(service.database, service.memory, query, service.tuning)
    results = results_from(query, found, include_weights=data.include_weights)
    return _answer(results, query, found, started, service)


def _answer(
    results: list[ResultOut],
    query: Query,
    found: Found,
    started: float,
    service: Service,
    embedding_ms: float | UnsetType = UNSET,
) -> SearchOut:
    """The answer, counted."""
    elapsed = time.perf_counter() - started
    service.metrics.queries.inc()
    service.metrics.decays.inc(found.scored)
    service.metrics.query_duration.observe(elapsed)
    service.metrics.degraded.inc(bool(found.degraded))
    service.budget.observe(elapsed)
    return SearchOut(
        results=results,
        mode=query.mode,
        at=query.at,
        latency_ms=round(elapsed * 1000, 3),
        budget_ms=service.settings.budget_ms,
        degraded=found.degraded,
        embedding_ms=embedding_ms,
    )
