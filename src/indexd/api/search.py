"""Routes that find."""

import time

import msgspec
import structlog
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType

from indexd.access import Access
from indexd.api import examples, texts
from indexd.api.auth import scope
from indexd.api.limits import check_search
from indexd.api.operations import Operation, json_post
from indexd.api.parse import DEFAULT_K, checked_id, namespace_of, search_from
from indexd.api.results import result_from
from indexd.api.structs import RelatedIn, ResultOut, SearchIn, SearchOut
from indexd.errors import (
    DimensionMismatch,
    EmbedderUnavailable,
    InvalidEmbedding,
    MissingQuery,
    ModelMismatch,
    NotFound,
)
from indexd.service import Service
from indexd.store import related as store_related
from indexd.store import search as store
from indexd.store.filters import Filters
from indexd.store.search import Found, Mode, Search


@json_post(
    "/index/search",
    scope("read", others="empty"),
    Operation(
        "Search",
        "Find",
        examples.SEARCH,
        (InvalidEmbedding, DimensionMismatch, MissingQuery, ModelMismatch, EmbedderUnavailable),
    ),
)
async def search(
    data: JSONBody[SearchIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> SearchOut:
    """Find the k chunks of the highest score, by meaning or by their words."""
    check_search(data, service.settings)
    wanted = search_from(data, max_k=service.settings.max_k, embeds=service.embedder is not None)
    structlog.contextvars.bind_contextvars(namespace=wanted.namespace)
    wanted = msgspec.structs.replace(wanted, namespace=access.reads(wanted.namespace))
    wanted, embedding_ms = await texts.with_vector(wanted, service)
    # The embedder's time is measured apart: no search gets faster by looking at less for it.
    started = time.perf_counter()
    found = await _found(wanted, service)
    results = [
        result_from(
            hit,
            wanted.namespace,
            wanted.filters,
            include_weights=data.include_weights,
            cosine=found.cosines.get((hit.doc_id, hit.chunk_id)),
        )
        for hit in found.hits
    ]
    if wanted.mode == "vector":
        service.exposures.note(wanted.namespace, found.hits)
    return _answer(results, wanted.mode, found, started, service, embedding_ms)


async def _found(wanted: Search, service: Service) -> Found:
    """In one round trip where that proves the answer, else in a snapshot of several."""
    at, tuning = service.now(), service.tuning
    if attempt := store.attempt(wanted, at=at, tuning=tuning):
        rows = await service.database.read_once(attempt.settings, attempt.statement, attempt.values)
        if found := store.proven(attempt, rows):
            return found
    return await service.database.read(
        lambda connection: store.search(connection, wanted, at=at, tuning=tuning)
    )


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
    k = min(data.k or DEFAULT_K, service.settings.max_k)
    at, inside = service.now(), access.reads(namespace)
    found = await service.database.read(
        lambda connection: store_related.related(
            connection, inside, doc_id, k=k, at=at, tuning=service.tuning
        )
    )
    results = [
        result_from(hit, namespace, Filters(), include_weights=data.include_weights)
        for hit in found.hits
    ]
    return _answer(results, "vector", found, started, service)


def _answer(
    results: list[ResultOut],
    mode: Mode,
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
        mode=mode,
        latency_ms=round(elapsed * 1000, 3),
        budget_ms=service.settings.budget_ms,
        degraded=found.degraded,
        embedding_ms=embedding_ms,
    )
