"""The corpus at any size: jittered copies of the real one, loaded in time order and indexed."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from benchmarks.harness import copy_rows, corpus, embeddings
from indexd.background import index_keeper
from indexd.db.sessions import maintenance
from indexd.settings import Settings
from indexd.vectors import normalised

SEED = 20260820
NAMESPACE = "chronik"

COSINE = 0.92
"""Of a copy to its origin, about."""

DAYS = 30
"""A copy is at most so much older or newer than its origin."""

SHARES = (0.001, 0.01, 0.1, 0.5)
"""Shares of the chunks that a filter keeps. Each has a tag, a source_path and an instant."""

BUILD_MEMORY = "3GB"
"""maintenance_work_mem of the connection that builds; the embedded server gives 2 GB at most."""


class Sized(msgspec.Struct, frozen=True):
    """Documents of one chunk, oldest first; `moments` are seconds since 1970."""

    doc_ids: list[str]
    texts: list[str]
    tags: list[list[str]]
    paths: list[str | None]
    moments: NDArray[np.float64]
    vectors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.doc_ids)


def share_tag(share: float) -> str:
    return f"share/{share:g}"


def sized(chunks: int, newest: float) -> Sized:
    """The same for the same numbers; all moments are shifted so that the last is `newest`.

    The first copy of each row is the row itself.
    """
    table = corpus()
    rows = len(table)
    rng = np.random.default_rng(SEED)
    origin = np.arange(chunks) % rows
    copied = np.arange(chunks) >= rows
    vectors = embeddings(table)[origin]
    spread = np.sqrt(1 / COSINE**2 - 1) / np.sqrt(vectors.shape[1])
    moments = np.array([moment.timestamp() for moment in table["ingested_at"].to_pylist()])[origin]
    for block in np.array_split(np.flatnonzero(copied), 20):
        noise = rng.normal(scale=spread, size=(block.size, vectors.shape[1]))
        vectors[block] += noise.astype(np.float32)
    moments[copied] += rng.uniform(-DAYS, DAYS, copied.sum()) * 86_400
    vectors = np.array([normalised(vector) for vector in vectors])
    order = np.argsort(moments, kind="stable")
    moments += newest - moments.max()

    kept = rng.random((len(SHARES), chunks)) < np.array(SHARES)[:, None]
    path = np.searchsorted(np.cumsum(SHARES), rng.random(chunks), side="right")
    doc_ids, texts, tags = (table[name].to_pylist() for name in ("doc_id", "text", "tags"))
    return Sized(
        doc_ids=[f"{doc_ids[origin[n]]}-{n // rows}" for n in order],
        texts=[texts[origin[n]] for n in order],
        tags=[
            [*tags[origin[n]], *(share_tag(SHARES[i]) for i in np.flatnonzero(kept[:, n]))]
            for n in order
        ],
        paths=[share_tag(SHARES[i]) if i < len(SHARES) else None for i in path[order]],
        # What PostgreSQL keeps of a moment is microseconds.
        moments=np.round(moments[order], 6),
        vectors=vectors[order],
    )


def moment_of(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=round(seconds * 1e6))


def load(url: str, rows: Sized) -> float:
    """COPY in time order, as a real corpus arrives; answers the seconds it took."""
    started = time.perf_counter()
    moments = [moment_of(seconds) for seconds in rows.moments]

    def copied() -> Iterator[tuple[Any, ...]]:
        for n, doc_id in enumerate(rows.doc_ids):
            yield (
                *(NAMESPACE, doc_id, 0, moments[n], None, rows.vectors[n], f"{doc_id}#0"),
                *(None, rows.paths[n], rows.tags[n]),
                *(Jsonb({"tags": rows.tags[n]}), rows.texts[n]),
            )

    copy_rows(url, len(rows), copied)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE) indexd.chunks")
        connection.execute("VACUUM (ANALYZE) indexd.documents")
    return time.perf_counter() - started


def index(url: str) -> float:
    """One round of the keeper, by the rules that users get; answers the seconds it took."""

    async def build() -> None:
        async with maintenance(url, "indexd keeper") as connection:
            await connection.execute(f"SET maintenance_work_mem = '{BUILD_MEMORY}'")
            async with index_keeper.lock(connection, 0.5):
                await index_keeper.keep_once(connection, index_keeper.rules(Settings()))

    started = time.perf_counter()
    asyncio.run(build())
    return time.perf_counter() - started


def cosines(rows: Sized, queries: NDArray[np.float32]) -> NDArray[np.float64]:
    """Shape (queries, chunks), by float64 over the float32 vectors."""
    wide = queries.astype(np.float64)
    found = np.empty((len(queries), len(rows)))
    for block in np.array_split(np.arange(len(rows)), max(len(rows) // 20_000, 1)):
        found[:, block] = wide @ rows.vectors[block].astype(np.float64).T
    return found
