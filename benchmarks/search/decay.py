"""Search under decay, with filters and by many clients at once, over HTTP, at several sizes."""

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray

from benchmarks import harness
from benchmarks.http_clients import Wire, port_of
from benchmarks.search import corpus, report
from benchmarks.search.bench import (
    BARE,
    OVERFETCHED,
    Bench,
    connected,
    database,
    ids,
    put_in_force,
    search_request,
    timed,
    values_of,
)
from benchmarks.search.concurrent import crowded, upserts
from benchmarks.search.corpus import SHARES, share_tag
from benchmarks.search.results import AtSize, Filtered, HalfLife, Times
from indexd.store.filters import Filters
from indexd.store.search import statements
from indexd.store.search.costs import Tuning
from indexd.vectors import normalised

DAY = 86_400.0
HALF_LIVES = {
    "none": None,
    "1 d": DAY,
    "30 d": 30 * DAY,
    "180 d": 180 * DAY,
    "1 y": 365 * DAY,
    "3 y": 3 * 365 * DAY,
    "10 y": 3_652 * DAY,
}
EXACT_EVERY = 10
"""The exact scan is slow and hardly varies: every so many queries."""

FILTER_QUERIES = 25

WARM_UP = 20
"""Searches before the first that counts."""


def run(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks search")
    parser.add_argument("--chunks", default="40000,125000,500000", help="sizes, by commas")
    parser.add_argument("--out", type=Path, help="folder for search-benchmark.md and .png")
    parser.add_argument("--kept", type=Path, help="folder that keeps the databases for next time")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--only", default="decay,filters,crowd,upserts")
    given = parser.parse_args(arguments)
    sizes = [int(chunks) for chunks in given.chunks.split(",")]
    only = {
        (size, what)
        for size in sizes
        for what in given.only.split(",")
        # Of filters and upserts the largest says enough.
        if size == max(sizes) or what not in ("filters", "upserts")
    }
    with harness.postgres(given.kept) as url:
        found = [
            measure(url, size, given.queries, {what for s, what in only if s == size})
            for size in sizes
        ]
    report.report(found, given.out)


def measure(url: str, chunks: int, queries: int, only: set[str]) -> AtSize:
    """All that is asked for at one size, on a database of its own."""
    target, rows, loaded, built = database(url, chunks)
    ef = Tuning().first_ef(chunks)
    with (
        harness.serving(target) as (client, server),
        connected(target, ef) as bare,
        connected(target, ef) as planned,
    ):
        planned.execute("SET plan_cache_mode = force_custom_plan")
        bench = Bench(
            url=target,
            port=port_of(client),
            client=client,
            server=server.pid,
            bare=bare,
            planned=planned,
            rows=rows,
            places={doc_id: place for place, doc_id in enumerate(rows.doc_ids)},
            queries=np.array(
                [normalised(query) for query in harness.embeddings(harness.queries())[:queries]]
            ),
        )
        warm(bench)
        found = AtSize(
            chunks=chunks,
            ef=ef,
            loaded=loaded,
            built=built,
            index_bytes=index_bytes(bare),
            versions=versions(bare),
            queries=len(bench.queries),
            load_before=os.getloadavg()[0],
            half_lives=by_half_life(bench) if "decay" in only else [],
            filtered=by_filter(bench) if "filters" in only else [],
            crowd=crowded(bench, ef) if "crowd" in only else None,
            upserts=upserts(bench) if "upserts" in only else None,
            load_after=os.getloadavg()[0],
        )
        report.show(found)
        return found


def index_bytes(bare: psycopg.Connection[Any]) -> int:
    [size] = bare.execute("""
        SELECT coalesce(sum(pg_relation_size(indexrelid)), 0)
          FROM pg_index
          JOIN pg_class
            ON pg_class.oid = indexrelid
         WHERE starts_with(relname, 'hnsw_')
    """).fetchone() or (0,)
    return int(size)


def versions(bare: psycopg.Connection[Any]) -> str:
    [postgres, pgvector] = bare.execute("""
        SELECT current_setting('server_version'),
               (SELECT extversion FROM pg_extension WHERE extname = 'vector')
    """).fetchone() or ("", "")
    return f"PostgreSQL {postgres.split()[0]}, pgvector {pgvector}"


def by_half_life(bench: Bench) -> list[HalfLife]:
    similarity = corpus.cosines(bench.rows, bench.queries)
    return [at_half_life(bench, similarity, name) for name in HALF_LIVES]


def warm(bench: Bench) -> None:
    """Everything into memory: what is measured is a server that has been running."""
    values = values_of(bench.queries[0], None, datetime.now(UTC), Filters())
    fetch(bench, statements.scan(Filters()), values)
    for query in bench.queries:
        nearest(bench, query)


def progress(what: str) -> None:
    """The tables come at the end, which is far."""
    print(f"{what}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)


def at_half_life(bench: Bench, similarity: NDArray[np.float64], name: str) -> HalfLife:
    """Every query over HTTP, as bare statement, over-fetched, and some by exact scan, in turn."""
    progress(f"{len(bench.rows):,} chunks at half-life {name}")
    half_life = HALF_LIVES[name]
    put_in_force(bench.url, half_life)
    at = datetime.now(UTC)
    decays = bench.decays(half_life, at)
    wire = Wire(bench.port)
    took: dict[str, list[float]] = defaultdict(list)
    recalls, overfetch_recalls, scored = [], [], []
    for query in bench.queries[:WARM_UP]:
        wire.ask(search_request(query))
        nearest(bench, query)
    for n, query in enumerate(bench.queries):
        scores = similarity[n] * decays
        sent = search_request(query)
        values = values_of(query, half_life, at, Filters())
        if n % 2:  # who asks first pays for what is not in the caches
            timed(took["nearest"], partial(nearest, bench, query))
        before = bench.scored()
        answer = timed(took["http"], partial(wire.ask, sent))
        scored.append(float(bench.scored() - before))
        recalls.append(bench.recall(scores, ids(answer)))
        if not n % 2:
            timed(took["nearest"], partial(nearest, bench, query))
        rows = timed(
            took["overfetch"], partial(fetch, bench, statements.answer(OVERFETCHED), values)
        )
        overfetch_recalls.append(bench.recall(scores, [row[0] for row in rows]))
        if n % EXACT_EVERY == 0:
            rows = timed(took["exact"], partial(fetch, bench, statements.scan(Filters()), values))
            if bench.recall(scores, [row[0] for row in rows]) < 1:
                raise AssertionError(f"the exact scan and numpy differ at {name}")
    return HalfLife(
        name=name,
        recall=float(np.mean(recalls)),
        scored=float(np.quantile(scored, 0.5)),
        http=Times.of(took["http"]),
        bare=Times.of(took["nearest"]),
        exact=Times.of(took["exact"]),
        overfetch=Times.of(took["overfetch"]),
        overfetch_recall=float(np.mean(overfetch_recalls)),
    )


def fetch(bench: Bench, statement: str, values: dict[str, Any]) -> list[Any]:
    return bench.planned.execute(statement, values).fetchall()


def nearest(bench: Bench, query: NDArray[np.float32]) -> list[Any]:
    return bench.bare.execute(BARE, {"vector": query}).fetchall()


def by_filter(bench: Bench) -> list[Filtered]:
    """Each kind of filter at each share, over HTTP and by exact scan, without decay and with."""
    queries = bench.queries[:FILTER_QUERIES]
    similarity = corpus.cosines(bench.rows, queries)
    found = []
    for name in ("none", "1 y"):
        put_in_force(bench.url, HALF_LIVES[name])
        for share in SHARES:
            progress(f"filters that keep {share:.1%} at half-life {name}")
            tag = share_tag(share)
            since = bench.rows.moments[-int(share * len(bench.rows)) - 1]
            tagged = np.array([tag in tags for tags in bench.rows.tags])
            pathed = np.array([path == tag for path in bench.rows.paths])
            filters = (
                Kept("tags", share, Filters(tags=[tag]), tagged),
                Kept("source_path", share, Filters(source_path=[tag]), pathed),
                Kept(
                    "ingested_after",
                    share,
                    Filters(ingested_after=corpus.moment_of(since)),
                    bench.rows.moments > since,
                ),
            )
            found += [filtered_by(bench, similarity, queries, kept, name) for kept in filters]
    return found


class Kept(NamedTuple):
    """A filter of one kind, and the rows of the corpus that it keeps: a share of all."""

    kind: str
    share: float
    filters: Filters
    rows: NDArray[np.bool_]


def filtered_by(
    bench: Bench,
    similarity: NDArray[np.float64],
    queries: NDArray[np.float32],
    kept: Kept,
    half_life_name: str,
) -> Filtered:
    half_life = HALF_LIVES[half_life_name]
    at = datetime.now(UTC)
    decays = bench.decays(half_life, at)
    value = getattr(kept.filters, kept.kind)
    wanted = {kept.kind: value if isinstance(value, list) else value.isoformat()}
    wire = Wire(bench.port)
    took: dict[str, list[float]] = defaultdict(list)
    recalls = []
    for query in queries[:5]:
        wire.ask(search_request(query, filters=wanted))
    for n, query in enumerate(queries):
        answer = timed(took["http"], partial(wire.ask, search_request(query, filters=wanted)))
        recalls.append(bench.recall(similarity[n] * decays, ids(answer), kept.rows))
        values = values_of(query, half_life, at, kept.filters)
        timed(took["exact"], partial(fetch, bench, statements.scan(kept.filters), values))
    return Filtered(
        kind=kept.kind,
        share=kept.share,
        half_life=half_life_name,
        recall=float(np.mean(recalls)),
        http=Times.of(took["http"]),
        exact=Times.of(took["exact"]),
    )
