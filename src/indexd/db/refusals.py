"""Remembers which statements the database refused (read-only, disk full, missing right).

It prevents that each refused statement writes a line to the log.
"""

import logging
import time

from indexd.errors import DatabaseFull, DatabasePrivilege, DatabaseReadOnly, DatabaseRefusal

log = logging.getLogger(__name__)
"""The standard library's logger: `store` imports this module, and must not import structlog."""

MESSAGES_KEPT = 100
"""Number of messages about missing rights that are logged; it bounds the memory."""


class Refusals:
    """Logs "read-only" and "disk full" once until a write succeeds, and each missing right once."""

    def __init__(self) -> None:
        self._last: tuple[DatabaseRefusal, float] | None = None
        self._states: set[str] = set()
        self._rights: set[str] = set()

    @property
    def last(self) -> DatabaseRefusal | None:
        """The refusal of the last write; None if it succeeded."""
        return self._last and self._last[0]

    @property
    def age_seconds(self) -> float:
        """How long ago the last write was refused."""
        return time.monotonic() - self._last[1] if self._last else 0.0

    @property
    def lasting(self) -> bool:
        """Whether a write that succeeds ends a refusal."""
        return self._last is not None or bool(self._states)

    def say(self, refusal: DatabaseRefusal, said: str) -> None:
        """Log the message of the database, unless it was logged before."""
        if isinstance(refusal, DatabasePrivilege):
            if said in self._rights or len(self._rights) >= MESSAGES_KEPT:
                return
            self._rights.add(said)
        elif isinstance(refusal, DatabaseReadOnly | DatabaseFull):
            if refusal.code in self._states:
                return
            self._states.add(refusal.code)
        log.warning("the database refuses a statement, %s: %s", refusal.code, said)

    def of_write(self, refusal: DatabaseRefusal) -> None:
        self._last = refusal, time.monotonic()

    def wrote(self) -> None:
        """Note that a transaction was committed which wrote or locked rows."""
        self._last = None
        self._states.clear()
        log.warning("the database takes writes again")
