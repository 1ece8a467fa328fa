"""A buffer of exposures (documents that a search returned), which is written in the background.

No request writes exposures. Only searches of namespaces whose policy has a `semantic:` section are
noted: no other feature reads exposures.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime

import psycopg
import structlog

from indexd.db.pool import Connection, Database
from indexd.errors import DatabaseReadOnly, IndexdError
from indexd.store import policies
from indexd.store.forgetting import relevance
from indexd.store.forgetting.relevance import PRIOR, Exposure
from indexd.store.search.hits import Hit
from indexd.supervised import run_in_background
from indexd.telemetry.metrics import Metrics

log = structlog.get_logger()


class ExposureBuffer:
    """Exposures that are not written yet, of at most `limit` documents.

    Exposures of further documents are dropped, and counted in a metric.
    """

    def __init__(self, metrics: Metrics, limit: int) -> None:
        self._metrics = metrics
        self._limit = limit
        self._seen: dict[str, dict[str, Exposure]] = {}
        self._held = 0

    def note(self, namespace: str, hits: Iterable[Hit]) -> None:
        """Note each document once per search, with the similarity of its best chunk.

        `hits` are sorted, the best first.
        """
        best = {hit.doc_id: hit.similarity for hit in reversed([*hits])}
        documents = self._seen.get(namespace, {})
        for doc_id, cosine in best.items():
            known = documents.get(doc_id)
            if known is None:
                if self._held >= self._limit:
                    self._metrics.exposures_dropped.inc()
                    continue
                self._held += 1
                known = Exposure(doc_id, 0, 0, 0.0, PRIOR)
            documents[doc_id] = known.seen(cosine)
        # A namespace is held only with documents, so `limit` bounds the namespaces as well.
        if documents:
            self._seen[namespace] = documents

    async def flush(self, database: Database, at: datetime) -> None:
        """Write the buffer to the database, in one transaction per namespace, and empty it.

        If a transaction fails, its exposures are dropped, and counted in a metric.
        """
        seen, self._seen, self._held = self._seen, {}, 0
        for namespace, documents in seen.items():
            exposures = list(documents.values())
            try:
                written = await database.write(
                    lambda c, n=namespace, e=exposures: _record(c, n, e, at)  # type: ignore[misc]
                )
                self._metrics.exposures_flushed.inc(written)
            except (IndexdError, psycopg.Error) as error:
                self._metrics.exposures_dropped.inc(len(exposures))
                # The pool has logged already that the database is read-only.
                if not isinstance(error, DatabaseReadOnly):
                    log.warning("dropped exposures", count=len(exposures), cause=str(error))

    @asynccontextmanager
    async def flushed(
        self, database: Database, now: Callable[[], datetime], interval: float
    ) -> AsyncIterator[None]:
        """Flush every `interval` seconds while this context is open, and once when it closes."""

        async def repeat() -> None:
            while True:
                await asyncio.sleep(interval)
                await self.flush(database, now())

        try:
            async with run_in_background(repeat):
                yield
        finally:
            await self.flush(database, now())


async def _record(
    connection: Connection, namespace: str, seen: list[Exposure], at: datetime
) -> int:
    """Write exposures of one namespace. Returns how many were written.

    Returns 0 if the policy has lost its `semantic:` section since the search.
    """
    semantic = (await policies.of(connection, namespace)).semantic
    if semantic is None:
        return 0
    await relevance.record(connection, namespace, seen, at=at)
    await relevance.mark(connection, namespace, [one.doc_id for one in seen], semantic, at=at)
    return len(seen)
