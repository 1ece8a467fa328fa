"""What the measurements of search share: a database at a size, its truth, requests, statements."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import httpx
import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector

from benchmarks import harness
from benchmarks.http_clients import request
from benchmarks.search import corpus
from benchmarks.search.corpus import NAMESPACE, Sized
from indexd.db import migrate
from indexd.policy import Policies, Policy
from indexd.store import policies
from indexd.store.filters import Filters, parameters
from indexd.store.search.statements import by_index

K = 10
DIMENSION = 384

BARE = f"""
    SELECT doc_id, chunk_id, text, meta, tags, ingested_at, -(embedding <#> %(vector)s)
      FROM indexd.chunks
     WHERE namespace = '{NAMESPACE}'
       AND vector_dims(embedding) = {DIMENSION}
     ORDER BY (embedding::halfvec({DIMENSION})) <#> %(vector)s::vector::halfvec({DIMENSION})
     LIMIT {K}
"""
"""The nearest k with all there is to show of them, as one would write it for psql."""

OVERFETCHED = f"""
    SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds, cosine AS similarity
      FROM ({by_index(DIMENSION, Filters(), "0 AS more")}) AS nearby
"""
"""The usual recipe's candidates: the 10 k most similar, to be re-ranked by decay."""


class Bench(msgspec.Struct, frozen=True):
    """One size: its rows, their database, a server process, and connections beside it.

    `bare` is as psycopg gives it, `planned` plans each statement anew as the server does.
    """

    url: str
    port: int
    client: httpx.Client
    server: int
    bare: psycopg.Connection[Any]
    planned: psycopg.Connection[Any]
    rows: Sized
    places: dict[str, int]
    queries: NDArray[np.float32]

    def scored(self) -> int:
        """Chunks scored under decay so far."""
        [line] = [
            line
            for line in self.client.get("/metrics").text.splitlines()
            if line.startswith("index_decay_applied_total")
        ]
        return int(float(line.split()[1]))

    def decays(self, half_life: float | None, at: datetime) -> NDArray[np.float64]:
        """Shape (chunks,)."""
        if half_life is None:
            return np.ones(len(self.rows))
        ages = np.maximum(at.timestamp() - self.rows.moments, 0)
        decay: NDArray[np.float64] = 0.5 ** (ages / half_life)
        return decay

    def recall(
        self, scores: NDArray[np.float64], found: Sequence[str], kept: Any = slice(None)
    ) -> float:
        """The share of the k best among `kept` that was found, ties with the k-th aside.

        It is 1 where none is kept. float32 sums tell no scores apart that differ by less than a
        millionth.
        """
        among = scores[kept]
        k = min(K, among.size)
        if not k:
            return 1.0
        kth = np.partition(among, among.size - k)[among.size - k]
        least = kth - 1e-6 * abs(kth)
        right = {doc_id for doc_id in found if scores[self.places[doc_id]] >= least}
        return len(right) / int(k)


def database(url: str, chunks: int) -> tuple[str, Sized, float, float]:
    """A database of `chunks` chunks with their index, and the seconds to load and to build.

    One that is there from an earlier run is taken as it is, in no seconds.
    """
    name = f"sized{chunks}"
    target = url.replace("/indexd?", f"/{name}?")
    with psycopg.connect(url) as connection:
        there = connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", (name,)
        ).fetchone()
    if there:
        migrate.upgrade(target)
        with psycopg.connect(target) as connection:
            [newest] = connection.execute(
                "SELECT max(ingested_at) FROM indexd.chunks WHERE namespace = %s", (NAMESPACE,)
            ).fetchone() or (None,)
        return target, corpus.sized(chunks, newest.timestamp()), 0.0, corpus.index(target)
    rows = corpus.sized(chunks, float(round(time.time())) - 3_600)
    harness.empty_database(url, name)
    return target, rows, corpus.load(target, rows), corpus.index(target)


def connected(url: str, ef: int) -> psycopg.Connection[Any]:
    """With this ef for the whole session."""
    connection = psycopg.connect(url, autocommit=True)
    register_vector(connection)
    connection.execute(f"SET hnsw.ef_search = {ef}")
    return connection


def put_in_force(url: str, half_life: float | None) -> None:
    """As `indexd policy apply` does: searches see it from the next on."""

    async def apply() -> None:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            wanted = Policies(Policy(), {NAMESPACE: Policy(half_life)}, f"benchmark {half_life}")
            await policies.apply(connection, wanted)

    asyncio.run(apply())


def search_request(query: NDArray[np.float32], **more: Any) -> bytes:
    body = {"namespace": NAMESPACE, "embedding": query.tolist(), "k": K}
    return request("/index/search", body | more)


def values_of(
    query: NDArray[np.float32], half_life: float | None, at: datetime, filters: Filters
) -> dict[str, Any]:
    """The parameters of the server's own statements."""
    return parameters(filters) | {
        "namespace": NAMESPACE,
        "vector": query,
        "half_life": half_life,
        "k": K,
        "at": at,
        "similar_rows": 10 * K,
    }


def ids(answer: bytes) -> list[str]:
    return [result["doc_id"] for result in msgspec.json.decode(answer)["results"]]


def timed(durations: list[float], work: Callable[[], Any]) -> Any:
    started = time.perf_counter()
    found = work()
    durations.append(time.perf_counter() - started)
    return found
