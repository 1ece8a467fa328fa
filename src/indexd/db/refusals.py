"""What the database refuses a process for a reason of its own, and what the log was told of it."""

import logging
import time

from indexd.errors import DatabaseFull, DatabasePrivilege, DatabaseReadOnly, DatabaseRefusal

log = logging.getLogger(__name__)
"""The standard library's: the store, which reaches this by the pool, must not know structlog."""

MESSAGES_KEPT = 100
"""Messages about missing rights that are remembered as said; further ones are not said."""


class Refusals:
    """Read-only and full are said once until a write succeeds, each missing right once."""

    def __init__(self) -> None:
        self._last: tuple[DatabaseRefusal, float] | None = None
        self._states: set[str] = set()
        self._rights: set[str] = set()

    @property
    def last(self) -> DatabaseRefusal | None:
        """What the last write met; None where it succeeded."""
        return self._last and self._last[0]

    @property
    def age_seconds(self) -> float:
        """How long ago the last write was refused."""
        return time.monotonic() - self._last[1] if self._last else 0.0

    @property
    def lasting(self) -> bool:
        """Whether a write that succeeds is news."""
        return self._last is not None or bool(self._states)

    def say(self, refusal: DatabaseRefusal, said: str) -> None:
        """Log what the database said, unless the log has it."""
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
        """A transaction was committed that wrote something, or at least locked it."""
        self._last = None
        self._states.clear()
        log.warning("the database takes writes again")
