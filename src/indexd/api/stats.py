"""What is in the memory."""

from litestar import get
from litestar.di import NamedDependency

from indexd import __version__, db
from indexd.api.structs import NamespaceOut, StatsOut, VersionOut
from indexd.db import Connection, Versions
from indexd.service import Service
from indexd.store import policies
from indexd.store import stats as store
from indexd.store.stats import NamespaceStats


async def _look(connection: Connection) -> tuple[list[NamespaceStats], str, Versions]:
    _, policy_hash = await policies.in_force(connection)
    return await store.by_namespace(connection), policy_hash, await db.versions(connection)


@get("/index/stats", operation_id="Stats")
async def stats(service: NamedDependency[Service]) -> StatsOut:
    """Documents and chunks, whole and by namespace."""
    rows, policy_hash, versions = await service.database.read(_look)
    return StatsOut(
        total_documents=sum(row.documents for row in rows),
        total_chunks=sum(row.chunks for row in rows),
        namespaces={row.namespace: row.documents for row in rows},
        budget_ms=service.settings.budget_ms,
        policy_hash=policy_hash,
        details={row.namespace: NamespaceOut.of(row) for row in rows},
        version=VersionOut(__version__, versions.postgres, versions.pgvector, versions.schema),
    )
