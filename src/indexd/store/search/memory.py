"""What a process remembers of namespaces between searches.

Memory only steers: each answer is proved in its own snapshot, whatever is remembered. One object
holds all of it, one rule empties it: the namespace that was not searched for the longest time goes.
"""

from collections import OrderedDict
from datetime import datetime

import msgspec

from indexd.store.filters import Filters
from indexd.store.namespaces import Facts
from indexd.store.search.age_histogram import Ages

NAMESPACES = 1_000
"""Namespaces that are remembered."""

FILTERS = 200
"""Filters per namespace whose number of matching chunks is remembered; the oldest goes first."""

GROWTH = 0.1
"""Share by which a namespace may grow or shrink before an estimate of it is made anew."""

FAILURES = 3
"""Unproved shortcuts in a row after which only every RETRY-th search tries one."""

RETRY = 16

AGES_SECONDS = 10.0
"""Seconds after which the age histogram is asked for again."""


class Known(msgspec.Struct):
    """What is remembered of one namespace; `facts` by dimension, `matching` by filter."""

    facts: dict[int, Facts] = msgspec.field(default_factory=dict)
    failures: int = 0
    matching: dict[bytes, tuple[int, float]] = msgspec.field(default_factory=dict)
    ages: Ages = msgspec.field(default_factory=dict)
    ages_counted_at: datetime | None = None
    ages_asked: float | None = None


class NamespaceMemory:
    """Owned by the application, passed to each search."""

    def __init__(self, limit: int = NAMESPACES) -> None:
        self._limit = limit
        self._known: OrderedDict[str, Known] = OrderedDict()

    def of(self, namespace: str) -> Known:
        """What is known of a namespace, and where more is noted."""
        known = self._known.get(namespace)
        if known is None:
            if len(self._known) >= self._limit:
                self._known.popitem(last=False)
            known = self._known[namespace] = Known()
        self._known.move_to_end(namespace)
        return known

    def facts(self, namespace: str, dimension: int) -> Facts | None:
        known = self._known.get(namespace)
        return known.facts.get(dimension) if known else None

    def keep(self, facts: Facts) -> None:
        """Note what a snapshot said of a namespace that exists."""
        self.of(facts.namespace).facts[facts.vectors_dimension] = facts

    def drop(self, facts: Facts) -> None:
        """These facts no longer hold."""
        self.of(facts.namespace).facts.pop(facts.vectors_dimension, None)

    def note_shortcut(self, namespace: str, *, proved: bool) -> None:
        """Count what a shortcut was good for."""
        known = self.of(namespace)
        known.failures = 0 if proved else known.failures + 1

    def may_try_shortcut(self, namespace: str) -> bool:
        """False for most searches of a namespace whose shortcuts proved nothing lately."""
        known = self.of(namespace)
        if known.failures < FAILURES:
            return True
        known.failures += 1
        return known.failures % RETRY == 0

    def matching(self, facts: Facts, filters: Filters) -> float | None:
        """Estimated chunks that pass the filters; None where nobody estimated it at this size."""
        chunks, rows = self.of(facts.namespace).matching.get(_key(filters), (0, 0.0))
        return rows if abs(facts.chunks - chunks) <= GROWTH * chunks else None

    def keep_matching(self, facts: Facts, filters: Filters, rows: float) -> None:
        matching = self.of(facts.namespace).matching
        if len(matching) >= FILTERS:
            del matching[next(iter(matching))]
        matching[_key(filters)] = (facts.chunks, rows)


def _key(filters: Filters) -> bytes:
    return msgspec.json.encode(filters.asked, order="sorted")
