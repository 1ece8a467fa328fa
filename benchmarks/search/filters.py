"""`where` over 40,000 documents: 20 shapes from one row to all, next to SQL written by hand."""

import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector.psycopg import register_vector

from benchmarks import harness

QUERIES = 40
K = 10
HALF_LIFE = 180 * 86_400.0
AREAS = ("doc", "diff", "gui", "tests", "build")


class Shape(NamedTuple):
    """A tree, the same as SQL over chunk_fields (`f`) and documents (`d`), and as Python."""

    where: Any
    sql: str
    holds: Callable[[dict[str, Any]], bool]


def leaf(field: str, op: str, *value: Any) -> Any:
    return {"field": field, "op": op} | ({"value": value[0]} if value else {})


def shapes(rows: Sequence[dict[str, Any]]) -> dict[str, Shape]:
    """From one row to all of them."""
    one = rows[123]["doc_id"]
    some = [row["doc_id"] for row in rows[:2_000:100]]
    middle = "2025-01-01"
    meta = "f.meta -> '{}'".format

    def n(row: dict[str, Any]) -> int:
        return int(row["meta"]["n"])

    return {
        "one id": Shape(
            leaf("doc_id", "eq", one), f"f.doc_id = '{one}'", lambda row: row["doc_id"] == one
        ),
        "20 ids": Shape(
            leaf("doc_id", "in", some),
            f"f.doc_id = ANY('{{{','.join(some)}}}')",
            lambda row: row["doc_id"] in some,
        ),
        "one number": Shape(
            leaf("meta.n", "eq", 777), "f.meta @> '{\"n\": 777}'", lambda row: n(row) == 777
        ),
        "four numbers": Shape(
            leaf("meta.n", "in", [1, 2, 3, 4]),
            "f.meta -> 'n' IN ('1', '2', '3', '4')",
            lambda row: n(row) in (1, 2, 3, 4),
        ),
        "number < 400": Shape(
            leaf("meta.n", "lt", 400), f"({meta('n')})::int < 400", lambda row: n(row) < 400
        ),
        "number < 20,000": Shape(
            leaf("meta.n", "lt", 20_000), f"({meta('n')})::int < 20000", lambda row: n(row) < 20_000
        ),
        "number >= 0": Shape(
            leaf("meta.n", "gte", 0), f"({meta('n')})::int >= 0", lambda row: n(row) >= 0
        ),
        "1 of 10 colours": Shape(
            leaf("meta.colour", "eq", "c3"),
            'f.meta @> \'{"colour": "c3"}\'',
            lambda row: row["meta"]["colour"] == "c3",
        ),
        "not a colour": Shape(
            leaf("meta.colour", "ne", "c3"),
            "f.meta ->> 'colour' <> 'c3'",
            lambda row: row["meta"]["colour"] != "c3",
        ),
        "missing": Shape(
            leaf("meta.rare", "missing"),
            "NOT f.meta ? 'rare'",
            lambda row: "rare" not in row["meta"],
        ),
        "exists, 1 in 500": Shape(
            leaf("meta.rare", "exists"), "f.meta ? 'rare'", lambda row: "rare" in row["meta"]
        ),
        "due before a date": Shape(
            leaf("meta.due", "lt", middle),
            f"f.meta ->> 'due' < '{middle}'",
            lambda row: row["meta"]["due"] < middle,
        ),
        "tag": Shape(
            leaf("tags", "any", ["area/git-gui"]),
            "f.tags && '{area/git-gui}'",
            lambda row: "area/git-gui" in row["tags"],
        ),
        "tag below": Shape(
            leaf("tags", "prefix", "area"),
            "EXISTS (SELECT FROM unnest(f.tags) AS t WHERE t LIKE 'area/%%' OR t = 'area')",
            lambda row: any(tag.startswith("area/") or tag == "area" for tag in row["tags"]),
        ),
        "not a tag": Shape(
            {"not": leaf("tags", "any", ["area/doc"])},
            "NOT f.tags && '{area/doc}'",
            lambda row: "area/doc" not in row["tags"],
        ),
        "tag and number": Shape(
            {"and": [leaf("tags", "any", ["area/doc"]), leaf("meta.n", "lt", 10_000)]},
            f"f.tags && '{{area/doc}}' AND ({meta('n')})::int < 10000",
            lambda row: "area/doc" in row["tags"] and n(row) < 10_000,
        ),
        "tag or colour": Shape(
            {"or": [leaf("tags", "any", ["area/git-gui"]), leaf("meta.colour", "eq", "c3")]},
            "(f.tags && '{area/git-gui}' OR f.meta @> '{\"colour\": \"c3\"}')",
            lambda row: "area/git-gui" in row["tags"] or row["meta"]["colour"] == "c3",
        ),
        "array holds": Shape(
            leaf("meta.list", "contains", 3),
            "f.meta -> 'list' @> '3'",
            lambda row: 3 in row["meta"]["list"],
        ),
        "version 1": Shape(leaf("version", "eq", 1), "d.version = 1", lambda row: True),
        "nested": Shape(
            {
                "and": [
                    {
                        "or": [
                            leaf("meta.colour", "in", ["c1", "c2"]),
                            leaf("meta.n", "gte", 39_000),
                        ]
                    },
                    {"not": leaf("tags", "prefix", "area/doc")},
                    leaf("meta.due", "gte", middle),
                ]
            },
            f"(f.meta ->> 'colour' IN ('c1', 'c2') OR ({meta('n')})::int >= 39000)"
            f" AND NOT f.tags && '{{area/doc}}' AND f.meta ->> 'due' >= '{middle}'",
            lambda row: (
                (row["meta"]["colour"] in ("c1", "c2") or n(row) >= 39_000)
                and "area/doc" not in row["tags"]
                and row["meta"]["due"] >= middle
            ),
        ),
    }


SEARCH_BY_HAND = """
    SELECT f.doc_id
      FROM indexd.chunks AS c
      JOIN indexd.chunk_fields AS f USING (namespace, doc_id, ordinal)
      JOIN indexd.documents AS d USING (namespace, doc_id)
     WHERE f.namespace = 'chronik'
       AND {}
     ORDER BY -(c.embedding <#> %(vector)s)
              * 0.5 ^ (greatest(date_part('epoch', %(at)s - c.ingested_at), 0) / {}) DESC
     LIMIT 10
"""
LIST_BY_HAND = """
    SELECT d.*
      FROM indexd.documents AS d
     WHERE d.namespace = 'chronik'
       AND EXISTS (
            SELECT
              FROM indexd.chunk_fields AS f
             WHERE f.namespace = 'chronik'
               AND f.doc_id = d.doc_id
               AND {}
           )
     ORDER BY d.doc_id
     LIMIT 100
"""


def documents() -> list[dict[str, Any]]:
    """The corpus with metas made up for it."""
    dice = random.Random(5)  # noqa: S311 (data of a benchmark)
    rows: list[dict[str, Any]] = harness.corpus().to_pylist()
    for place, row in enumerate(rows):
        due = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=dice.randrange(730))
        row["meta"] = {
            "n": place,
            "colour": f"c{dice.randrange(10)}",
            "due": f"{due:%Y-%m-%d}",
            "list": dice.sample(range(10), 3),
        } | ({"rare": True} if place % 500 == 0 else {})
    return rows


def upload(client: httpx.Client, rows: Sequence[dict[str, Any]]) -> None:
    lines = [
        msgspec.json.encode(
            {
                "doc_id": row["doc_id"],
                "namespace": "chronik",
                "chunks": [
                    {
                        "text": row["text"],
                        "embedding": row["embedding"],
                        "meta": row["meta"] | {"tags": row["tags"]},
                    }
                ],
                "ingested_at": row["ingested_at"],
                "half_life_seconds": HALF_LIFE,
            }
        )
        for row in rows
    ]
    for start in range(0, len(lines), 2_000):
        body = b"\n".join(lines[start : start + 2_000])
        told = client.post("/index/bulk", content=body, headers=harness.NDJSON).json()
        if told["failed"]:
            raise SystemExit(str(told))


class Corpus(NamedTuple):
    """The documents, their unit vectors of shape (documents, dimension), and decay at `at`."""

    rows: Sequence[dict[str, Any]]
    ids: NDArray[np.str_]
    vectors: NDArray[np.float32]
    decay: NDArray[np.float64]
    at: datetime


def corpus_of(rows: Sequence[dict[str, Any]]) -> Corpus:
    at = max(row["ingested_at"] for row in rows)
    ages = np.array([(at - row["ingested_at"]).total_seconds() for row in rows])
    ids = np.array([row["doc_id"] for row in rows])
    return Corpus(rows, ids, unit(harness.corpus()), 0.5 ** (ages / HALF_LIFE), at)


def unit(table: Any) -> NDArray[np.float32]:
    vectors = harness.embeddings(table)
    unit_vectors: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit_vectors


def run() -> None:
    """Print the table."""
    rows = documents()
    corpus, asked = corpus_of(rows), unit(harness.queries())[:QUERIES]
    with harness.postgres() as server:
        url = harness.empty_database(server, "bench_filters")
        measure(url, corpus, asked)


def measure(url: str, corpus: Corpus, asked: NDArray[np.float32]) -> None:
    with harness.serving(url) as (client, _):
        upload(client, corpus.rows)
        await_index(client)
        with psycopg.connect(url, autocommit=True) as connection:
            register_vector(connection)
            connection.execute("SET plan_cache_mode = force_custom_plan")
            connection.execute("VACUUM ANALYZE")
            table = [
                (
                    name,
                    *searched(client, connection, shape, asked, corpus),
                    *listed(client, connection, shape),
                )
                for name, shape in shapes(corpus.rows).items()
            ]
            print_update(client, connection)
    harness.print_table(
        f"where over {len(corpus.rows):,} documents, k = 10, half-life 180 days, p50 ms",
        ("shape", "rows", "recall", "search", "by hand", "list of 100", "by hand"),
        table,
    )


INDEX_SIZE = """
    SELECT sum(pg_relation_size(indexrelid))::bigint
      FROM pg_stat_user_indexes
     WHERE indexrelname LIKE 'hnsw%'
"""


def print_update(client: httpx.Client, connection: psycopg.Connection[Any]) -> None:
    """How long an update of all documents by a filter takes, and what it does to the graph."""
    [before] = connection.execute(INDEX_SIZE).fetchone() or (0,)
    body = {
        "namespace": "chronik",
        "filters": {"where": leaf("meta.n", "gte", 0)},
        "set": {"meta": {"seen": True}, "tags": ["all"]},
    }
    started = time.perf_counter()
    told = client.post("/index/documents/update", json=body).raise_for_status().json()
    spent = time.perf_counter() - started
    [after] = connection.execute(INDEX_SIZE).fetchone() or (0,)
    print(f"updated {told['updated']:,} in {spent:.1f} s; graph {before:,} bytes, then {after:,}")


def await_index(client: httpx.Client) -> None:
    """Until the index keeper has built the index."""
    for _ in range(600):
        told = client.get("/index/stats").json()
        if told["details"]["chronik"]["index"] == "hnsw":
            return
        time.sleep(1)
    raise SystemExit("no index was built")


def searched(
    client: httpx.Client,
    connection: psycopg.Connection[Any],
    shape: Shape,
    asked: NDArray[np.float32],
    corpus: Corpus,
) -> tuple[str, ...]:
    """How many rows match, the recall against numpy, and the times of both ways to search."""
    passes = np.array([shape.holds(row) for row in corpus.rows])
    matching = set(corpus.ids[passes].tolist())
    spent: list[float] = []
    by_hand: list[float] = []
    found = expected = 0
    statement = SEARCH_BY_HAND.format(shape.sql, HALF_LIFE)
    for vector in asked:
        scores = np.where(passes, corpus.vectors @ vector * corpus.decay, -np.inf)
        best = np.sort(scores)[::-1][:K]
        best = best[best > -np.inf]
        body = {
            "namespace": "chronik",
            "embedding": vector.tolist(),
            "k": K,
            "at": corpus.at.isoformat(),
            "filters": {"where": shape.where},
        }
        started = time.perf_counter()
        hits = client.post("/index/search", json=body).json()["results"]
        spent.append(time.perf_counter() - started)
        # Equal scores may stand in either order: what counts is that no hit is below the k-th.
        found += sum(hit["doc_id"] in matching and hit["score"] >= best[-1] - 1e-5 for hit in hits)
        expected += len(best)
        values = {"vector": vector, "at": corpus.at}
        started = time.perf_counter()
        connection.execute(statement, values, binary=True).fetchall()
        by_hand.append(time.perf_counter() - started)
    return f"{len(matching):,}", f"{found / max(expected, 1):.4f}", p50(spent), p50(by_hand)


def listed(
    client: httpx.Client, connection: psycopg.Connection[Any], shape: Shape
) -> tuple[str, str]:
    """The times of both ways to list the first 100."""
    body = {"namespace": "chronik", "filters": {"where": shape.where}}
    statement = LIST_BY_HAND.format(shape.sql)

    def over_http() -> None:
        client.post("/index/documents/list", json=body).raise_for_status()

    def in_sql() -> None:
        connection.execute(statement, {}, binary=True).fetchall()

    return (
        p50([harness.seconds(over_http) for _ in range(10)]),
        p50([harness.seconds(in_sql) for _ in range(10)]),
    )


def p50(durations: Sequence[float]) -> str:
    return f"{harness.quantile_ms(durations, 0.5):.1f}"
