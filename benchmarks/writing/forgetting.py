"""Forgetting at size, and what a full namespace costs those who write into it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from benchmarks import harness
from benchmarks.harness import corpus, embeddings, quantile_ms, queries, seconds
from benchmarks.http_clients import Wire, port_of, request
from indexd.vectors import normalised

MANY = 200_000
SEARCHED = 60_000
NOW = datetime.now(UTC)
HALF = NOW - timedelta(minutes=MANY / 2 - 0.5)
"""Document n is n minutes old: half of the many are older than this."""


def run() -> None:
    real = embeddings(corpus())
    chance = np.random.default_rng(7)
    noise = chance.normal(0, 0.4 / np.sqrt(real.shape[1]), real.shape)
    near = np.concatenate([real, real + noise.astype(np.float32)])
    vectors = np.array([normalised(vector) for vector in near])
    with harness.postgres() as url:
        for rebuild in (True, False):
            search_through_deletion(
                harness.empty_database(url, "deleting"), vectors, rebuild=rebuild
            )
        forget_against_delete(harness.empty_database(url, "forgetting"), vectors)
        for policy, mixed in (
            ("max_items: {}, purge_strategy: oldest", False),
            ("half_life_seconds: 2592000, max_items: {}, purge_strategy: lowest_score", False),
            ("half_life_seconds: 2592000, max_items: {}, purge_strategy: lowest_score", True),
        ):
            upsert_into_full(harness.empty_database(url, "full"), vectors, policy, mixed=mixed)


def load(url: str, namespace: str, vectors: NDArray[Any], count: int, *, mixed: bool) -> None:
    """Documents of one chunk, one a minute; with `mixed`, most have a half-life of their own."""
    chance = np.random.default_rng(7)
    own = [None, 86_400.0, 604_800.0, 7_776_000.0]
    half_lives = [own[int(n)] if mixed else None for n in chance.integers(0, 4, count)]

    def rows() -> Iterator[tuple[Any, ...]]:
        for n in reversed(range(count)):
            moment, vector = NOW - timedelta(minutes=n), vectors[n % len(vectors)]
            yield (
                *(namespace, f"d{n:07}", 0, moment, half_lives[n], vector),
                *(f"d{n:07}#0", None, None, [], Jsonb({}), f"text number {n}"),
            )

    harness.copy_rows(url, count, rows)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE indexd.documents")
        connection.execute("VACUUM ANALYZE indexd.chunks")
        connection.execute("CHECKPOINT")


def forget_against_delete(url: str, vectors: NDArray[Any]) -> None:
    """Half of a namespace over HTTP; the same deletes and entries by hand; the deletes alone."""
    took: dict[str, list[float]] = {"http": [], "logged": [], "bare": []}
    # Without the indexes that the keeper would build meanwhile, on the same cores.
    with harness.serving(url, environ={"INDEXD_INDEX_LIMIT": "0"}) as (client, _):
        for turn in range(2):
            for way in took:
                load(url, f"{way}{turn}", vectors, MANY, mixed=False)
            took["bare"].append(seconds(partial(delete, url, f"bare{turn}", logged=False)))
            took["http"].append(seconds(partial(forget, client, f"http{turn}")))
            took["logged"].append(seconds(partial(delete, url, f"logged{turn}", logged=True)))
    ours, logged, bare = (min(took[way]) for way in ("http", "logged", "bare"))
    harness.print_table(
        f"Forgetting {MANY // 2:,} of {MANY:,} documents",
        ("what", "seconds", "ratio", "target"),
        (
            ("the bare DELETEs", f"{bare:.2f}", "", ""),
            ("the same deletes and log entries in psycopg", f"{logged:.2f}", "", ""),
            ("POST /index/forget", f"{ours:.2f}", f"{ours / logged:.2f}", "1.5"),
        ),
    )


def search_through_deletion(url: str, vectors: NDArray[Any], *, rebuild: bool) -> None:
    """Searches of an indexed namespace before, while and after half of it is forgotten.

    With the keeper's rebuild, and without it, where a plain VACUUM repairs the graph.
    """
    load(url, "notes", vectors, SEARCHED, mixed=False)
    asked = np.array([normalised(vector) for vector in embeddings(queries())])
    environ = {"INDEXD_INDEX_WORN_SHARE": "0.2" if rebuild else "0.99"}
    limit = NOW - timedelta(minutes=SEARCHED / 2 - 0.5)
    rows = []
    with (
        harness.serving(url, environ=environ) as (client, _),
        psycopg.connect(url, autocommit=True) as admin,
    ):
        admin.execute("ALTER TABLE indexd.chunks SET (autovacuum_enabled = off)")
        wire = Wire(port_of(client))

        def measure(stage: str, kept: int, until: Callable[[], bool] | None = None) -> None:
            """All queries at least once, and again until something is so."""
            truth = np.argsort(-(asked @ vectors[:kept].T), axis=1, kind="stable")[:, :10]
            took: list[float] = []
            right, began = 0, time.perf_counter()
            while not took or (until and not until()):
                for vector, best in zip(asked, truth, strict=True):
                    body = {"namespace": "notes", "embedding": vector.tolist()}
                    sent = request("/index/search", body)
                    started = time.perf_counter()
                    found = msgspec.json.decode(wire.ask(sent))["results"]
                    took.append(time.perf_counter() - started)
                    right += len({hit["doc_id"] for hit in found} & {f"d{n:07}" for n in best})
            rows.append(
                (
                    stage,
                    f"{time.perf_counter() - began:.0f}" if until else "",
                    f"{quantile_ms(took, 0.5):.1f}",
                    f"{quantile_ms(took, 0.95):.1f}",
                    f"{right / len(took) / 10:.4f}",
                )
            )

        while client.get("/index/stats").json()["details"]["notes"]["index"] != "hnsw":
            time.sleep(1)
        measure("before", SEARCHED)
        client.post(
            "/index/forget",
            json={
                "filter": {"namespace": "notes", "older_than": limit.isoformat()},
                "reason": "benchmark",
                "confirm": True,
            },
        ).raise_for_status()
        if rebuild:
            measure("while it is built anew", SEARCHED // 2, lambda: not dead(admin))
            admin.execute("VACUUM indexd.chunks")
        else:
            with ThreadPoolExecutor(1) as worker:
                vacuum = worker.submit(admin.execute, "VACUUM indexd.chunks")
                measure("while VACUUM repairs it", SEARCHED // 2, vacuum.done)
        measure("after", SEARCHED // 2)
    harness.print_table(
        f"Searches while {SEARCHED // 2:,} of {SEARCHED:,} indexed chunks are forgotten, "
        + ("with the keeper's rebuild" if rebuild else "with VACUUM alone"),
        ("", "seconds", "p50 ms", "p95 ms", "recall@10"),
        rows,
    )


def dead(admin: psycopg.Connection) -> int:
    """Removed chunks that the index still holds."""
    [found] = admin.execute(
        "SELECT sum(chunks_removed - chunks_removed_at_build) FROM indexd.namespaces"
    ).fetchone() or (0,)
    return int(found)


def forget(client: httpx.Client, namespace: str) -> None:
    answer = client.post(
        "/index/forget",
        json={
            "filter": {"namespace": namespace, "older_than": HALF.isoformat()},
            "reason": "benchmark",
            "confirm": True,
        },
    )
    if answer.json()["forgotten_count"] != MANY // 2:
        raise RuntimeError(answer.text)


def delete(url: str, namespace: str, *, logged: bool) -> None:
    """What a script would do for itself: one transaction, one statement per table."""
    values = {"namespace": namespace, "limit": HALF, "event_id": uuid4()}
    with psycopg.connect(url) as connection:
        if logged:
            connection.execute(
                """
                INSERT INTO indexd.forgotten_documents (
                    namespace, event_id, doc_id, ingested_at, digest
                )
                SELECT namespace, %(event_id)s, doc_id, ingested_at, digest
                  FROM indexd.documents
                 WHERE namespace = %(namespace)s AND ingested_at < %(limit)s
                """,
                values,
            )
            connection.execute(
                """
                INSERT INTO indexd.forget_events (
                    namespace, event_id, at, kind, reason, forgotten_count, actor
                )
                VALUES (%(namespace)s, %(event_id)s, now(), 'manual', 'benchmark', 0, 'me')
                """,
                values,
            )
        for table in ("chunks", "documents"):
            connection.execute(
                f"DELETE FROM indexd.{table}"
                " WHERE namespace = %(namespace)s AND ingested_at < %(limit)s",
                values,
            )
        connection.commit()


def upsert_into_full(url: str, vectors: NDArray[Any], policy: str, *, mixed: bool) -> None:
    """Every upsert evicts one: the same from 1,000 documents and from 200,000, in turn."""
    sizes = {"small": 1_000, "large": MANY}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "policies.yaml"
        spaces = ", ".join(f"{name}: {{{policy.format(n)}}}" for name, n in sizes.items())
        file.write_text(f"namespaces: {{{spaces}}}")
        for name, count in sizes.items():
            load(url, name, vectors, count, mixed=mixed)
        environ = {"INDEXD_POLICIES": str(file), "INDEXD_INDEX_LIMIT": "0"}
        took: dict[str, list[float]] = {name: [] for name in sizes}
        with harness.serving(url, environ=environ) as (client, _):
            wire = Wire(port_of(client))
            for n in range(500):
                for name in sizes:
                    body = {
                        "doc_id": f"new{n}",
                        "namespace": name,
                        "chunks": [{"text": "new", "embedding": vectors[n].tolist()}],
                    }
                    sent = request("/index/upsert", body)
                    started = time.perf_counter()
                    wire.ask(sent)
                    took[name].append(time.perf_counter() - started)
            counts = client.get("/index/stats").json()["namespaces"]
    if counts != sizes:
        raise RuntimeError(f"the limit was not kept: {counts}")
    p50 = {name: quantile_ms(times[50:], 0.5) for name, times in took.items()}
    half_lives = ", mixed half-lives" if mixed else ""
    harness.print_table(
        f"Upsert into a full namespace, {policy.rpartition(' ')[2]}{half_lives}",
        ("documents", "p50 ms", "p95 ms", "ratio of p50", "target"),
        [
            (
                f"{sizes[name]:,}",
                f"{p50[name]:.2f}",
                f"{quantile_ms(times[50:], 0.95):.2f}",
                f"{p50[name] / p50['small']:.2f}",
                "" if mixed or name == "small" else "1.3",
            )
            for name, times in took.items()
        ],
    )
