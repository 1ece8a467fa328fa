"""Counting and logging what was forgotten, once it is committed."""

from collections.abc import Iterable

import structlog
from msgspec import UNSET

from indexd.api.structs import ForgottenOut
from indexd.store.forgetting.deletion import Deletion
from indexd.telemetry.metrics import Metrics

log = structlog.get_logger()

MANUAL = ("manual", "delete")
"""Kinds of deletions that a client asked for; the other kinds are those of retention."""


def record_deletions(deletions: Iterable[Deletion], metrics: Metrics) -> None:
    """Count the deleted documents in the metrics, and log one line per event."""
    for one in deletions:
        reason = "manual" if one.kind in MANUAL else one.kind
        metrics.forgotten.labels(one.namespace, reason).inc(one.count)
        if one.kind not in MANUAL:
            metrics.purges.labels(one.namespace, one.strategy).inc()
        log.info(
            "forgot",
            kind=one.kind,
            namespace=one.namespace,
            count=one.count,
            strategy=one.strategy,
            event_id=str(one.event_id),
        )


def count_by_reason(deletions: Iterable[Deletion], out: ForgottenOut) -> ForgottenOut:
    """Add to `out` the documents that retention deleted, by the reason; returns `out`."""
    for one in deletions:
        if one.kind == "ttl":
            out.ttl += one.count
        elif one.kind == "retention":
            out.retention += one.count
        elif one.kind == "semantic":
            out.semantic = (0 if out.semantic is UNSET else out.semantic) + one.count
    return out
