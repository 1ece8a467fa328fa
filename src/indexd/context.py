"""What every handler needs, in one frozen struct; made by `create_app`."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from indexd.background.exposure_buffer import ExposureBuffer
from indexd.db.pool import Database
from indexd.embedders import Embedder
from indexd.load.large_work import LargeWork
from indexd.load.latency_budget import LatencyBudget
from indexd.settings import Settings
from indexd.store.search import NamespaceMemory, Tuning
from indexd.telemetry.metrics import Metrics


def now() -> datetime:
    return datetime.now(UTC)


class Service(msgspec.Struct, frozen=True):
    """`full_tuning` is that of a search within the budget; `tuning` is the present one.

    `memory` is what this process remembers of namespaces.
    """

    settings: Settings
    database: Database
    metrics: Metrics
    full_tuning: Tuning
    memory: NamespaceMemory
    budget: LatencyBudget
    exposures: ExposureBuffer
    now: Callable[[], datetime] = now
    embedder: Embedder | None = None
    large_work: LargeWork = msgspec.field(default_factory=LargeWork)

    @property
    def tuning(self) -> Tuning:
        rung = self.budget.present
        return msgspec.structs.replace(
            self.full_tuning,
            candidate_share=rung.candidate_share,
            scored_limit=rung.scored_limit,
        )
