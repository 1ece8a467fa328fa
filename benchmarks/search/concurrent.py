"""Eight clients at once, and upserts into an indexed namespace."""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from statistics import median

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.http_clients import Wire, hammer, in_threads, request
from benchmarks.search.bench import (
    BARE,
    Bench,
    connected,
    put_in_force,
    search_request,
    timed,
)
from benchmarks.search.corpus import NAMESPACE
from benchmarks.search.results import Crowd, Times, Upserts

CLIENTS = 8
REQUESTS = 1_600
TURNS = 5
"""Of each kind, one after the other; the median counts."""

UPSERTS = 200


def crowded(bench: Bench, ef: int) -> Crowd:
    """Plain searches without decay over HTTP, and the bare statement in psycopg threads.

    Both come from a process of their own, with bodies and vectors prepared.
    """
    put_in_force(bench.url, None)
    requests = [search_request(query) for query in bench.queries]
    server = psutil.Process(bench.server)
    over_http, by_hand, cpu = [], [], []
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as beside:
        for turn in range(TURNS + 1):
            before = server.cpu_times()
            took = beside.submit(hammer, bench.port, requests, CLIENTS, REQUESTS).result()
            after = server.cpu_times()
            bare = beside.submit(hammer_bare, bench.url, bench.queries, ef).result()
            if turn:  # the first only warms up
                over_http.append(REQUESTS / took)
                by_hand.append(REQUESTS / bare)
                used = after.user + after.system - before.user - before.system
                cpu.append(used / REQUESTS)
    return Crowd(http=median(over_http), bare=median(by_hand), cpu_ms=median(cpu) * 1000)


def hammer_bare(url: str, queries: NDArray[np.float32], ef: int) -> float:
    """Seconds that as many threads take for as many statements."""

    def work(numbers: Iterator[int]) -> None:
        with connected(url, ef) as connection:
            for number in numbers:
                connection.execute(BARE, {"vector": queries[number % len(queries)]}).fetchall()

    return in_threads(work, CLIENTS, REQUESTS)


def upserts(bench: Bench) -> Upserts:
    """New documents of one chunk into the indexed namespace and into one that was empty, in turn.

    The chunks are jittered rows; they are deleted afterwards.
    """
    rng = np.random.default_rng(1)
    wire, serial = Wire(bench.port), count(int(time.time()))
    durations: dict[str, list[float]] = {NAMESPACE: [], "empty": []}
    places = rng.integers(0, len(bench.rows), UPSERTS)
    for number, place in zip(serial, places, strict=False):
        vector = bench.rows.vectors[place] + rng.normal(scale=0.02, size=bench.queries.shape[1])
        for namespace, taken in durations.items():
            sent = upsert_request(namespace, f"new-{number}", vector, bench.rows.texts[place])
            timed(taken, lambda s=sent: wire.ask(s))  # type: ignore[misc]
        for namespace in durations:
            body = {"namespace": namespace, "doc_id": f"new-{number}"}
            if namespace == NAMESPACE:
                wire.ask(request("/index/delete", body))
    return Upserts(Times.of(durations[NAMESPACE][20:]), Times.of(durations["empty"][20:]))


def upsert_request(
    namespace: str, doc_id: str, vector: Sequence[float] | NDArray[np.float64], text: str
) -> bytes:
    chunk = {"text": text, "embedding": np.asarray(vector).tolist()}
    return request("/index/upsert", {"namespace": namespace, "doc_id": doc_id, "chunks": [chunk]})
