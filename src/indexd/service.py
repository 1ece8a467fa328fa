"""What every handler needs, in one frozen struct; made by `create_app`."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from indexd.db import Database
from indexd.embedders import Embedder
from indexd.exposures import Exposures
from indexd.metrics import Metrics
from indexd.settings import Settings
from indexd.store.probe_sweep import Tuning


def now() -> datetime:
    return datetime.now(UTC)


class Service(msgspec.Struct, frozen=True):
    settings: Settings
    database: Database
    metrics: Metrics
    tuning: Tuning
    exposures: Exposures
    now: Callable[[], datetime] = now
    embedder: Embedder | None = None
