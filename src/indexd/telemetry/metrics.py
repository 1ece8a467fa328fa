"""The metrics of /metrics. Dashboards and alerts depend on their names.

Counters of writes are incremented after the commit. With several worker processes, the Prometheus
library keeps every value in one file per process in the folder PROMETHEUS_MULTIPROC_DIR, which
`indexd serve --workers` creates before the workers start. Each worker answers /metrics for all.
"""

import os
import resource
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4"
"""Content-Type of the text format, without the character set, which Litestar adds."""

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of the Prometheus library, which reads it when it is imported."""

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0)
"""Seconds: upper bounds of the histograms' buckets; 0.06 is the default latency budget."""

OTHER = "_other"
"""Label for all namespaces above the cap: a label with an unbounded number of values would exhaust
the memory of Prometheus. A namespace with this name is counted among them."""

EMBED_FAILURES = ("answer", "refused", "status", "timeout", "unreachable")
AUTH_FAILURES = ("missing", "unknown", "revoked", "expired", "scope", "limited")
REJECTIONS = ("rate_limit", "requests", "queue", "wait", "bodies", "bytes")
REASONS = ("manual", "retention", "semantic", "ttl")
STRATEGIES = ("lowest_score", "oldest", "ttl")
DUE = ("expired", "surplus")
STATUSES = ("200", "500", "503")
"""Values of labels that are known at the start. Their time series are created at the start with the
value 0, because `rate` and `increase` do not count the event that creates a time series."""

UNKNOWN_ROUTE = "unknown"
"""Label of requests that match no route. Their paths are unbounded, so they are not labels."""

# For the whole process: a series `*_created` per counter would double the counters.
disable_created_metrics()  # type: ignore[no-untyped-call]


class NamespaceCounter(Counter):
    """A counter whose first label is a namespace. `folded` maps those above the cap to OTHER."""

    folded: Callable[[str], str] = staticmethod(str)

    def labels(self, *values: Any, **named: Any) -> Any:
        namespace, *rest = values
        return super().labels(self.folded(namespace), *rest, **named)


class _Process:
    """The standard metrics of a process, or the sums over all workers.

    The library's own collector covers only the process that answers the request.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._process = psutil.Process()
        self._cpu_seen = 0.0
        self._cpu = Counter(
            "process_cpu_seconds", "User and system CPU time spent, in seconds", registry=registry
        )

        def gauge(name: str, help: str, mode: Any) -> Gauge:
            return Gauge(f"process_{name}", help, registry=registry, multiprocess_mode=mode)

        self._resident = gauge("resident_memory_bytes", "Resident memory in bytes", "livesum")
        self._virtual = gauge("virtual_memory_bytes", "Virtual memory in bytes", "livesum")
        self._open = gauge("open_fds", "Open file descriptors", "livesum")
        self._most = gauge("max_fds", "Most file descriptors one process may open", "livemin")
        self._started = gauge("start_time_seconds", "Start, in seconds since 1970", "livemin")

    def measure(self) -> None:
        with self._process.oneshot():
            cpu, memory = self._process.cpu_times(), self._process.memory_info()
            self._open.set(self._process.num_fds())
            self._started.set(self._process.create_time())
        spent = cpu.user + cpu.system
        self._cpu.inc(spent - self._cpu_seen)
        self._cpu_seen = spent
        self._resident.set(memory.rss)
        self._virtual.set(memory.vms)
        self._most.set(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self, namespaces: int = 100) -> None:
        self.registry = CollectorRegistry()
        self._cap = namespaces
        self._named: set[str] = set()
        self.queries = Counter(
            "index_queries", "Searches, /index/related among them", registry=self.registry
        )
        self.query_duration = Histogram(
            "index_query_duration_seconds",
            "From the request to the answer of a search",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.decays = Counter(
            "index_decay_applied",
            "Chunks whose score was computed under decay, added once per search",
            registry=self.registry,
        )
        self.forgotten = self._by_namespace(
            "index_items_forgotten", "Documents that were deleted, by reason", "reason"
        )
        self.embed_duration = Histogram(
            "index_embed_duration_seconds",
            "What the embedder takes for one batch of texts",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.embed_batches = Counter(
            "index_embed_batches", "Batches that the embedder answered", registry=self.registry
        )
        self.embed_texts = Counter(
            "index_embed_texts", "Texts in these batches", registry=self.registry
        )
        self.embed_reused = Counter(
            "index_embed_reused",
            "Chunk texts that kept the vector they had",
            registry=self.registry,
        )
        self.embed_cache_hits = Counter(
            "index_embed_cache_hits",
            "Query texts whose vector was still known",
            registry=self.registry,
        )
        self.embed_failures = Counter(
            "index_embed_failures",
            "Attempts that failed, by cause",
            ["cause"],
            registry=self.registry,
        )
        self.purges = self._by_namespace(
            "index_retention_purges",
            "Times that retention removed documents; strategy ttl is that of age and expiry",
            "strategy",
        )
        self.requests = Counter(
            "index_requests",
            "Requests answered, by route and status",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.auth_failures = Counter(
            "index_auth_failures",
            f"Requests refused for their key: {', '.join(AUTH_FAILURES)}",
            ["reason"],
            registry=self.registry,
        )
        self.rejected = Counter(
            "index_requests_rejected",
            f"Requests refused for load: {', '.join(REJECTIONS)}",
            ["reason"],
            registry=self.registry,
        )
        self.index_builds = Counter(
            "index_hnsw_builds", "HNSW indexes that this server built", registry=self.registry
        )
        self.degraded = Counter(
            "index_degraded_answers",
            "Searches answered with less effort, to come back into the budget",
            registry=self.registry,
        )
        self.over_budget = Counter(
            "index_budget_exceeded",
            "Times that the p95 of searches went above the budget",
            registry=self.registry,
        )
        self.budget_p95 = self._gauge(
            "index_budget_p95_seconds", "p95 of the searches in the sliding window", "livemax"
        )
        self.budget_seconds = self._gauge(
            "index_budget_seconds", "What that p95 should stay below", "livemax"
        )
        self.budget_rung = self._gauge(
            "index_budget_rung", "Rung of the ladder of degradations, 0 is none", "livemax"
        )
        self.pool_size = self._gauge(
            "index_pool_connections", "Database connections that are open", "livesum"
        )
        self.pool_busy = self._gauge(
            "index_pool_busy", "Database connections at work for requests", "livesum"
        )
        self.pool_waiting = self._gauge(
            "index_pool_waiting", "Requests that wait for a database connection", "livesum"
        )
        self.overload = Gauge(
            "index_overload_state",
            "Processes in this state of admission: normal, shedding (overload), probation",
            ["state"],
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.pool_wait = Histogram(
            "index_pool_wait_seconds",
            "How long requests waited for a database connection",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.writes_refused = Gauge(
            "index_writes_refused",
            "1 while the last write was refused by the database, by reason: read_only, disk_full, "
            "insufficient_privilege, database_unavailable",
            ["reason"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.exposures_flushed = Counter(
            "index_exposures_flushed",
            "Exposures that were written, so counted towards relevance",
            registry=self.registry,
        )
        self.exposures_dropped = Counter(
            "index_exposures_dropped",
            "Exposures that were not counted towards relevance: too many, or no database",
            registry=self.registry,
        )
        self.embedder_up = Gauge(
            "index_embedder_up",
            "1 while the embedder works, 0 while requests that need it are turned away",
            ["provider"],
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self.indexes_missing = self._gauge(
            "index_hnsw_missing", "HNSW indexes that are due and do not serve yet", "livemax"
        )
        self.items_expired = Gauge(
            "index_items_expired",
            "Documents whose own expiry has passed (10,000 at most): hidden, and not removed yet",
            ["namespace"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.items_due = Gauge(
            "index_items_due",
            "Documents that the next upsert of their namespace takes: expired (10,000 at most) "
            "or surplus",
            ["namespace", "reason"],
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.disk_free = self._disk("free", "Bytes that are free")
        self.disk_size = self._disk("size", "Bytes in all")
        self._process = _Process(self.registry)
        self._due: set[str] = set()
        self._expired: set[str] = set()
        self._start_lines()

    def _start_lines(self) -> None:
        for counter, values in (
            (self.embed_failures, EMBED_FAILURES),
            (self.auth_failures, AUTH_FAILURES),
            (self.rejected, REJECTIONS),
        ):
            for value in values:
                counter.labels(value)

    def know_routes(self, routes: Iterable[tuple[str, str]]) -> None:
        """Create the time series of these methods and routes."""
        for method, route in routes:
            for status in STATUSES:
                self.requests.labels(method, route, status)

    def know_namespaces(self, documents: Mapping[str, int]) -> None:
        """Create the time series of these namespaces, the largest first."""
        for namespace in sorted(documents, key=lambda name: (-documents[name], name)):
            for reason in REASONS:
                self.forgotten.labels(namespace, reason)
            for strategy in STRATEGIES:
                self.purges.labels(namespace, strategy)

    def show_due(self, counts: Mapping[str, tuple[int, int]]) -> None:
        """Set the numbers of expired and of surplus documents by namespace."""
        shown = dict.fromkeys(self._due, (0, 0))
        for namespace, (expired, surplus) in counts.items():
            before = shown.get(folded := self._folded(namespace), (0, 0))
            shown[folded] = (before[0] + expired, before[1] + surplus)
        self._due = set(shown)
        for namespace, pair in shown.items():
            for reason, count in zip(DUE, pair, strict=True):
                self.items_due.labels(namespace, reason).set(count)

    def show_expired(self, counts: Mapping[str, int]) -> None:
        """Set the numbers of documents past their own expiry by namespace."""
        shown = dict.fromkeys(self._expired, 0)
        for namespace, count in counts.items():
            folded = self._folded(namespace)
            shown[folded] = shown.get(folded, 0) + count
        self._expired = set(shown)
        for namespace, count in shown.items():
            self.items_expired.labels(namespace).set(count)

    def measure_process(self) -> None:
        self._process.measure()

    def _disk(self, name: str, help: str) -> Gauge:
        return Gauge(
            f"index_disk_{name}_bytes",
            f"{help} on the disk that holds the database, where it is on this machine",
            ["holds"],
            registry=self.registry,
            multiprocess_mode="livemin",
        )

    def _by_namespace(self, name: str, help: str, label: str) -> NamespaceCounter:
        counter = NamespaceCounter(name, help, ["namespace", label], registry=self.registry)
        counter.folded = self._folded
        return counter

    def _gauge(self, name: str, help: str, mode: Any) -> Gauge:
        return Gauge(name, help, registry=self.registry, multiprocess_mode=mode)

    def _folded(self, namespace: str) -> str:
        """The label of a namespace: its name for the first namespaces up to the cap, else OTHER."""
        if namespace not in self._named:
            if namespace == OTHER or len(self._named) >= self._cap:
                return OTHER
            self._named.add(namespace)
        return namespace

    def render(
        self,
        documents: Mapping[str, int],
        only: frozenset[str] | None = None,
        *,
        read_only: bool | None = None,
    ) -> bytes:
        """The page of metrics in the text format.

        `documents` are the present numbers of documents by namespace. `read_only` says whether the
        database takes no writes; None if it did not answer. With `only`, the page holds nothing but
        the series of these namespaces: a caller who may see some namespaces must not learn totals.
        """
        families = list(self._source().collect())
        if only is not None:
            families = [_limited(family, only) for family in families]
            documents = {name: count for name, count in documents.items() if name in only}
        elif read_only is not None:
            name, text = "index_database_read_only", "1 while the database takes no writes"
            families.append(GaugeMetricFamily(name, text, read_only))
        families.append(_items(documents, self._cap))
        return generate_latest(_Families([f for f in families if f.samples or only is None]))

    def _source(self) -> CollectorRegistry:
        folder = os.environ.get(MULTIPROCESS)
        if not folder:
            return self.registry
        # A worker that was killed could not remove its gauges itself.
        for file in Path(folder).glob("gauge_live*_*.db"):
            pid = int(file.stem.rpartition("_")[2])
            if not psutil.pid_exists(pid):
                mark_process_dead(pid)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry


class _Families(Collector):
    """A collector of metric families that are collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def _items(documents: Mapping[str, int], cap: int) -> Metric:
    """Documents by namespace: the largest ones by name up to the cap, the rest as OTHER.

    An empty namespace has no time series.
    """
    family = GaugeMetricFamily("index_items_total", "Documents in a namespace", None, ["namespace"])
    ranked = sorted(documents.items(), key=lambda item: (-item[1], item[0]))
    named = [item for item in ranked if item[0] != OTHER][:cap]
    for namespace, count in named:
        family.add_metric([namespace], count)
    if rest := sum(documents.values()) - sum(count for _, count in named):
        family.add_metric([OTHER], rest)
    return family


def _limited(family: Metric, only: frozenset[str]) -> Metric:
    kept = Metric(family.name, family.documentation, family.type)
    kept.samples = [s for s in family.samples if s.labels.get("namespace") in only - {OTHER}]
    return kept
