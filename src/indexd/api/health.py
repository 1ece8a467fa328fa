"""Routes for those who run the service."""

from contextlib import suppress

from litestar import MediaType, Response, get
from litestar.di import NamedDependency

from indexd import db
from indexd.db import Check
from indexd.embedders import Embedder
from indexd.errors import DatabaseUnavailable
from indexd.metrics import CONTENT_TYPE
from indexd.service import Service
from indexd.store import stats


@get("/healthz", media_type=MediaType.TEXT, operation_id="Health")
async def healthz() -> str:
    """Whether the process answers; does not touch the database."""
    return "ok"


@get("/readyz", media_type=MediaType.TEXT, operation_id="Ready")
async def readyz(service: NamedDependency[Service]) -> Response[str]:
    """Whether requests can be served: 200 or 503, with one line per check."""
    try:
        checks = db.checks(await service.database.read(db.versions))
    except DatabaseUnavailable as error:
        checks = [Check("database", False, error.message)]
    checks.append(_embedder_check(service.embedder))
    ready = all(check.ok or not check.needed for check in checks)
    return Response(
        "".join(f"{c.name}: {c.word} ({c.detail})\n" for c in checks),
        status_code=200 if ready else 503,
        headers={} if ready else {"Retry-After": "1"},
        media_type=MediaType.TEXT,
    )


def _embedder_check(embedder: Embedder | None) -> Check:
    """As last seen: /readyz waits for no other server."""
    if embedder is None:
        return Check("embedder", True, "none configured")
    if embedder.down is not None:
        return Check("embedder", False, embedder.down, needed=False)
    return Check("embedder", True, embedder.describe())


@get("/metrics", operation_id="Metrics", media_type=CONTENT_TYPE)
async def metrics(service: NamedDependency[Service]) -> Response[bytes]:
    """Everything that is counted, for Prometheus; the documents as last seen."""
    with suppress(DatabaseUnavailable):
        service.metrics.set_items(await service.database.read(stats.document_counts))
    return Response(service.metrics.render(), media_type=CONTENT_TYPE)
