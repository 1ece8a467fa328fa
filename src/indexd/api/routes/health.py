"""Routes for those who run the service."""

from contextlib import suppress

import psycopg
from litestar import MediaType, Response
from litestar.di import NamedDependency

from indexd.access import OPEN, Access
from indexd.api.auth import scope
from indexd.api.operations import Operation, get
from indexd.context import Service
from indexd.db import checks
from indexd.db.checks import Check
from indexd.db.pool import Connection
from indexd.db.refusals import Refusals
from indexd.embedders import Embedder
from indexd.errors import DatabaseReadOnly, DatabaseUnavailable, Unavailable
from indexd.load.latency_budget import LatencyBudget
from indexd.store import stats
from indexd.telemetry.metrics import CONTENT_TYPE


@get("/healthz", scope(OPEN, others="-"), Operation("Health", "Operate"), MediaType.TEXT)
async def healthz() -> str:
    """Whether the process answers; does not touch the database."""
    return "ok"


@get(
    "/readyz",
    scope(OPEN, others="-"),
    Operation("Ready", "Operate", text_answers={503: "A check failed; one line per check"}),
    MediaType.TEXT,
)
async def readyz(service: NamedDependency[Service]) -> Response[str]:
    """Whether requests can be served: 200 or 503, with one line per check."""
    found = [
        *(_last_write(check, service.database.refusals) for check in await _database(service)),
        _embedder_check(service.configured_embedder),
        budget_check(service.budget),
    ]
    ready = all(check.ok for check in found)
    return Response(
        "".join(f"{check}\n" for check in found),
        status_code=200 if ready else 503,
        headers={} if ready else {"Retry-After": "1"},
        media_type=MediaType.TEXT,
    )


async def _database(service: Service) -> list[Check]:
    """The checks of the database; the one that it cannot be reached, where that is so."""
    try:
        return checks.checks(await service.database.read(checks.versions, urgent=True))
    except DatabaseUnavailable as error:
        return [Check("database", False, error.message)]
    except psycopg.Error as error:
        return [Check("database", False, str(error).splitlines()[0])]


@get(
    "/metrics",
    scope("read", others="left out", open_if="metrics_public", urgent=True),
    Operation("Metrics", "Operate"),
    CONTENT_TYPE,
)
async def metrics(
    service: NamedDependency[Service], access: NamedDependency[Access]
) -> Response[bytes]:
    """Everything that is counted, for Prometheus; by namespace only, for a key limited to some."""
    documents: dict[str, int] = {}
    read_only: bool | None = None
    with suppress(Unavailable):
        documents, read_only = await service.database.read(_counted, urgent=True)
    service.metrics.know_namespaces(documents)
    return Response(
        service.metrics.render(documents, access.namespaces, read_only=read_only),
        media_type=CONTENT_TYPE,
    )


async def _counted(connection: Connection) -> tuple[dict[str, int], bool]:
    read_only = await checks.no_writes(connection) is not None
    return await stats.document_counts(connection), read_only


def _last_write(check: Check, refusals: Refusals) -> Check:
    """The check of writes; it says so if the last write failed though the database takes writes."""
    if check.name != "writes" or check.state is not None or refusals.last is None:
        return check
    if isinstance(refusals.last, DatabaseReadOnly):
        return check  # which is over, as the database itself says
    detail = f"the last one, {refusals.age_seconds:.0f} s ago: {refusals.last.message}"
    return Check("writes", True, detail, "refused")


def budget_check(budget: LatencyBudget) -> Check:
    """Never a reason to send requests elsewhere: there they would be no faster."""
    detail = f"p95 {budget.p95 * 1000:.1f} ms of {budget.seconds * 1000:g} ms, rung {budget.rung}"
    return Check("budget", True, detail, "exceeded" if budget.exceeded else None)


def _embedder_check(embedder: Embedder | None) -> Check:
    """As last seen: /readyz waits for no other server, and is ready without it."""
    if embedder is None:
        return Check("embedder", True, "none configured")
    if embedder.down is not None and embedder.unusable is None:
        return Check("embedder", True, embedder.down, "degraded")
    return Check("embedder", True, embedder.describe())
