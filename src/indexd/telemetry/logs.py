"""Structured logs: one line per request. No line holds a text, a vector or a key."""

import logging
import sys
from typing import TextIO

import msgspec
import structlog
from structlog.typing import Processor

from indexd.load.admission import Change, State
from indexd.settings import Settings


def configure(settings: Settings, to: TextIO | None = None) -> None:
    """Send structlog and the standard library's loggers in one form to standard output, or `to`."""
    to = to or sys.stdout
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not to.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(serializer=_serialized)
        if as_json
        else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(to),
        # A logger that is cached keeps the configuration of its first line for good: whoever
        # configures again, as tests do, would not reach it.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(to)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def _serialized(event: object, **_: object) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


def tell_overload(change: Change) -> None:
    """Log a line when an overload begins, and a line when it ends."""
    log = structlog.get_logger()
    if change.state is State.SHEDDING:
        log.warning(
            "overload begins: requests are refused", busy=change.busy, waiting=change.waiting
        )
        return
    log.warning(
        "overload ends",
        state=change.state.value,
        seconds=round(change.seconds, 1),
        refused=change.refused,
        concurrency=change.concurrency,
    )
