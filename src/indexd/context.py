"""The services that every handler needs, in one frozen struct, which `create_app` makes."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from indexd.background.exposure_buffer import ExposureBuffer
from indexd.clock import now
from indexd.db.pool import Database
from indexd.embedders import Embedder
from indexd.load.large_work import LargeWork
from indexd.load.latency_budget import LatencyBudget
from indexd.settings import Settings
from indexd.store.search import NamespaceMemory, Tuning
from indexd.telemetry.metrics import Metrics


class Service(msgspec.Struct, frozen=True):
    """The parts that handlers and background tasks share.

    `full_tuning` is the tuning of searches while the latency budget is met; `tuning` is the present
    one. `memory` caches facts about namespaces.
    """

    settings: Settings
    database: Database
    metrics: Metrics
    full_tuning: Tuning
    memory: NamespaceMemory
    budget: LatencyBudget
    exposures: ExposureBuffer
    now: Callable[[], datetime] = now
    configured_embedder: Embedder | None = None
    large_work: LargeWork = msgspec.field(default_factory=LargeWork)

    @property
    def embedder(self) -> Embedder | None:
        """The embedder, unless there is none or it turned out to be unusable on this machine."""
        found = self.configured_embedder
        return None if found is not None and found.unusable is not None else found

    @property
    def tuning(self) -> Tuning:
        rung = self.budget.present
        return msgspec.structs.replace(
            self.full_tuning,
            candidate_share=rung.candidate_share,
            scored_limit=rung.scored_limit,
        )
