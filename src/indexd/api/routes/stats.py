"""What is in the memory."""

from typing import NamedTuple

from litestar.di import NamedDependency

from indexd import __version__
from indexd.access import Access
from indexd.api.auth import scope
from indexd.api.operations import Operation, get
from indexd.api.routes.retention import seen
from indexd.api.structs import NamespaceOut, StatsOut, VersionOut
from indexd.background import index_keeper
from indexd.context import Service
from indexd.db import checks
from indexd.db.checks import Versions
from indexd.db.pool import Connection
from indexd.store import indexes, policies
from indexd.store import stats as store
from indexd.store.indexes import Serving
from indexd.store.stats import NamespaceStats


class _Seen(NamedTuple):
    rows: list[NamespaceStats]
    indexes: dict[str, Serving]
    policy_hash: str
    versions: Versions


@get("/index/stats", scope("read", others="left out"), Operation("Stats", "Look"))
async def stats(service: NamedDependency[Service], access: NamedDependency[Access]) -> StatsOut:
    """Documents and chunks, whole and by namespace."""
    rules = index_keeper.rules(service.settings)

    async def look(connection: Connection) -> _Seen:
        _, policy_hash = seen(await policies.in_force(connection), access)
        return _Seen(
            await store.by_namespace(connection, at=service.now()),
            indexes.serving(
                await indexes.look(connection), rules, await indexes.obstacle(connection)
            ),
            policy_hash,
            await checks.versions(connection),
        )

    rows, serving, policy_hash, versions = await service.database.read(look)
    rows = [row for row in rows if access.sees(row.namespace)]
    return StatsOut(
        total_documents=sum(row.documents for row in rows),
        total_chunks=sum(row.chunks for row in rows),
        namespaces={row.namespace: row.documents for row in rows},
        budget_ms=service.settings.budget_ms,
        policy_hash=policy_hash,
        details={row.namespace: NamespaceOut.of(row, serving[row.namespace]) for row in rows},
        version=VersionOut(__version__, versions.postgres, versions.pgvector, versions.schema),
    )
