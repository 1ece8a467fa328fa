"""What a dead embedder costs: those who need it, after the breaker opened, and those who do not."""

import os
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np

from benchmarks import ground
from benchmarks.ground import print_table, quantile_ms

ROUNDS = 1_000
DIMENSION = 384


def run() -> None:
    rows = []
    with ground.postgres() as postgres:
        url = ground.empty_database(postgres, "embedder")
        for shown, environ in embedders():
            with configured(environ), ground.serving(url) as (client, _):
                needs, needs_not = measure(client)
            rows += [
                (shown, "has a vector of its own", *shown_ms(needs_not)),
                (shown, "needs the embedder", *shown_ms(needs)),
            ]
    print_table("A search in an empty namespace", ("embedder", "search", "p50 ms", "p95 ms"), rows)


def embedders() -> Iterator[tuple[str, dict[str, str]]]:
    yield "none", {}
    for shown, listening in (("refuses connections", False), ("hangs", True)):
        with socket.socket() as dead:
            dead.bind(("127.0.0.1", 0))
            if listening:
                dead.listen(1)
            url = f"http://127.0.0.1:{dead.getsockname()[1]}"
            yield (
                shown,
                {
                    "INDEXD_EMBEDDER_PROVIDER": "ollama",
                    "INDEXD_EMBEDDER_BASE_URL": url,
                    "INDEXD_EMBEDDER_TIMEOUT": "2",
                },
            )


@contextmanager
def configured(environ: dict[str, str]) -> Iterator[None]:
    os.environ.update(environ)
    try:
        yield
    finally:
        for name in environ:
            del os.environ[name]


def measure(client: httpx.Client) -> tuple[list[float], list[float]]:
    """Seconds of searches by text and by vector, in turn."""
    vector = np.ones(DIMENSION).tolist()
    asked: dict[str, Any] = {"text": {"query": "backup"}, "vector": {"embedding": vector}}
    client.post("/index/search", json=asked["text"])  # opens the breaker
    took: dict[str, list[float]] = {"text": [], "vector": []}
    for _ in range(ROUNDS):
        for kind, body in asked.items():
            started = time.perf_counter()
            client.post("/index/search", json=body)
            took[kind].append(time.perf_counter() - started)
    return took["text"], took["vector"]


def shown_ms(took: list[float]) -> tuple[str, str]:
    return f"{statistics.median(took) * 1000:.2f}", f"{quantile_ms(took, 0.95):.2f}"
