"""What a dead embedder costs: those who need it, after the breaker opened, and those who do not."""

import socket
import statistics
import time
from collections.abc import Callable, Iterator

import httpx
import numpy as np

from benchmarks import harness
from benchmarks.harness import print_table, quantile_ms

ROUNDS = 500
DIMENSION = 384


def run() -> None:
    rows = []
    with harness.postgres() as postgres:
        url = harness.empty_database(postgres, "embedder")
        for shown, environ in embedders():
            with harness.serving(url, environ) as (client, _):
                rows += [(shown, kind, *shown_ms(took)) for kind, took in measure(client).items()]
    print_table(
        "Requests in turn, in an empty namespace", ("embedder", "request", "p50 ms", "p95 ms"), rows
    )


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


def measure(client: httpx.Client) -> dict[str, list[float]]:
    """Seconds of each kind of request; one that does nothing is the yardstick."""
    vector = np.ones(DIMENSION).tolist()
    asked: dict[str, Callable[[], object]] = {
        "GET /healthz": lambda: client.get("/healthz"),
        "search by a vector": lambda: client.post("/index/search", json={"embedding": vector}),
        "search by a text": lambda: client.post("/index/search", json={"query": "backup"}),
    }
    asked["search by a text"]()  # opens the breaker
    took: dict[str, list[float]] = {kind: [] for kind in asked}
    for _ in range(ROUNDS):
        for kind, ask in asked.items():
            started = time.perf_counter()
            ask()
            took[kind].append(time.perf_counter() - started)
    return took


def shown_ms(took: list[float]) -> tuple[str, str]:
    return f"{statistics.median(took) * 1000:.2f}", f"{quantile_ms(took, 0.95):.2f}"
