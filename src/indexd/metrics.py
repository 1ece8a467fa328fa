"""What /metrics answers. Names are those of CONTRACT.md; counters move after a commit."""

from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0)
"""Seconds; 0.06 is the latency budget."""

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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
        self.items = Gauge(
            "index_items_total",
            "Documents in a namespace",
            ["namespace"],
            registry=self.registry,
        )
        self.forgotten = Counter(
            "index_items_forgotten",
            "Documents that were deleted, by reason",
            ["namespace", "reason"],
            registry=self.registry,
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

        self.purges = Counter(
            "index_retention_purges",
            "Times that retention removed documents; strategy ttl is that of max_age_seconds",
            ["namespace", "strategy"],
            registry=self.registry,
        )

        self.exposures_dropped = Counter(
            "index_exposures_dropped",
            "Exposures that were not counted towards relevance: too many, or no database",
            registry=self.registry,
        )

    def set_items(self, documents: Mapping[str, int]) -> None:
        """Replace all of `index_items_total`: a namespace that is empty has no line."""
        self.items.clear()
        for namespace, count in documents.items():
            self.items.labels(namespace).set(count)

    def render(self) -> bytes:
        return generate_latest(self.registry)
