"""What every handler needs, in one frozen struct; made by `create_app`."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from indexd.db import Database
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
    now: Callable[[], datetime] = now
