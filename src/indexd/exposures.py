"""What searches found, remembered in memory and written in the background, never in a request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime

import psycopg
import structlog

from indexd.background import beside
from indexd.db import Connection, Database
from indexd.errors import DatabaseReadOnly, IndexdError
from indexd.metrics import Metrics
from indexd.store import policies, relevance
from indexd.store.hits import Hit
from indexd.store.relevance import PRIOR, Exposure

log = structlog.get_logger()


class Exposures:
    """Exposures not written yet, at most `limit` documents; what does not fit is counted."""

    def __init__(self, metrics: Metrics, limit: int) -> None:
        self._metrics = metrics
        self._limit = limit
        self._seen: dict[str, dict[str, Exposure]] = {}
        self._held = 0

    def note(self, namespace: str, hits: Iterable[Hit]) -> None:
        """Each document once per search, by its best chunk: hits come best first."""
        space = self._seen.setdefault(namespace, {})
        for doc_id, cosine in {hit.doc_id: hit.similarity for hit in reversed([*hits])}.items():
            known = space.get(doc_id)
            if known is None:
                if self._held >= self._limit:
                    self._metrics.exposures_dropped.inc()
                    continue
                self._held += 1
                known = Exposure(doc_id, 0, 0, 0.0, PRIOR)
            space[doc_id] = known.seen(cosine)

    async def flush(self, database: Database, at: datetime) -> None:
        """Write all that is held; where the database fails it is dropped, and counted."""
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
                # The log has it once that the database takes no writes.
                if not isinstance(error, DatabaseReadOnly):
                    log.warning("dropped exposures", count=len(exposures), cause=str(error))

    @asynccontextmanager
    async def flushed(
        self, database: Database, now: Callable[[], datetime], interval: float
    ) -> AsyncIterator[None]:
        """Write every so many seconds as long as this lasts, and at the end."""

        async def repeat() -> None:
            while True:
                await asyncio.sleep(interval)
                await self.flush(database, now())

        try:
            async with beside(repeat):
                yield
        finally:
            await self.flush(database, now())


async def _record(
    connection: Connection, namespace: str, seen: list[Exposure], at: datetime
) -> int:
    """How many were written: only where the policy makes something of it."""
    semantic = (await policies.of(connection, namespace)).semantic
    if semantic is None:
        return 0
    await relevance.record(connection, namespace, seen, at=at)
    await relevance.mark(connection, namespace, [one.doc_id for one in seen], semantic, at=at)
    return len(seen)
