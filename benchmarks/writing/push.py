"""Push, upsert and search over HTTP, as ratios to the same work without HTTP."""

import hashlib
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from benchmarks import harness
from benchmarks.harness import corpus, embeddings, quantile_ms, queries, seconds
from benchmarks.http_clients import Wire, port_of, request
from indexd.store.filters import Filters, parameters
from indexd.store.search import statements
from indexd.vectors import normalised


def run() -> None:
    with harness.postgres() as url:
        push_against_copy(url)
        upsert_against_transaction(url)
        search_against_statement(url)
        memory_while_pushing(url)


def push_against_copy(url: str) -> None:
    table = corpus()
    rows = rows_for_copy(table)
    copies = [harness.empty_database(url, f"copied{n}") for n in range(2)]
    copied = min(
        seconds(partial(harness.copy_rows, target, len(rows), lambda: rows)) for target in copies
    )
    pushed_url = harness.empty_database(url, "pushed")
    # Without the index that the keeper would build meanwhile, on the same cores.
    with harness.serving(pushed_url, environ={"INDEXD_INDEX_LIMIT": "0"}) as (client, _):
        first = seconds(lambda: push(client, harness.DATA / "gitlog.parquet"))
        before = written(pushed_url)
        again = [seconds(lambda: push(client, harness.DATA / "gitlog.parquet")) for _ in range(2)]
        rewritten = written(pushed_url) - before
        stored = client.get("/index/stats").json()["total_documents"]
    alone = [encode_send_decode_digest() for _ in range(2)]
    start = seconds(
        lambda: subprocess.run(
            [sys.executable, "-m", "indexd", "push", "--help"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    )
    harness.print_table(
        "Push of 40,000 rows of 384 dimensions",
        ("what", "seconds", "ratio", "target"),
        (
            ("binary COPY into the same tables", f"{copied:.2f}", "", ""),
            (f"first push ({stored:,} stored)", f"{first:.2f}", f"{first / copied:.2f}", "4"),
            ("encode, send, decode, digest alone", f"{min(alone):.2f}", "", ""),
            (
                f"second push ({rewritten} rows written)",
                f"{min(again):.2f}",
                f"{min(again) / min(alone):.2f}",
                "1.5",
            ),
            ("of both pushes, the start of Python", f"{start:.2f}", "", ""),
        ),
    )


def rows_for_copy(table: Any) -> list[tuple[Any, ...]]:
    return [
        (
            *(row["namespace"], row["doc_id"], 0, row["ingested_at"], None, vector, row["id"]),
            *(None, None, row["tags"], Jsonb({"tags": row["tags"]}), row["text"]),
        )
        for row, vector in zip(
            table.drop(["embedding"]).to_pylist(),
            [normalised(vector) for vector in embeddings(table)],
            strict=True,
        )
    ]


def push(client: httpx.Client, file: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "indexd", "push", str(file), "--url", str(client.base_url)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def written(url: str) -> int:
    """Rows inserted, updated and deleted so far, by PostgreSQL's own counters."""
    time.sleep(12)  # an idle backend reports what it counted after ten seconds
    with psycopg.connect(url) as connection:
        [found] = connection.execute("""
            SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)
              FROM pg_stat_user_tables
             WHERE schemaname = 'indexd'
        """).fetchone() or (0,)
        return int(found)


def encode_send_decode_digest() -> float:
    """The same rows through the same code, to a server that stores nothing."""
    command = [sys.executable, "-m", "uvicorn", "benchmarks.writing.sink:app"]
    with harness.listening(command) as (client, _):
        return seconds(lambda: push(client, harness.DATA / "gitlog.parquet"))


def upsert_against_transaction(url: str) -> None:
    """One document of one chunk, new each time, over HTTP and by hand, in turn."""
    target = harness.empty_database(url, "upserts")
    table = corpus().slice(0, 600)
    vectors = [normalised(vector) for vector in embeddings(table)]
    texts = table["text"].to_pylist()
    requests = [
        request(
            "/index/upsert",
            {
                "doc_id": f"http-{n}",
                "namespace": "http",
                "chunks": [{"text": text, "embedding": vector.tolist()}],
            },
        )
        for n, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
    over_http, by_hand = [], []
    with harness.serving(target) as (client, _), psycopg.connect(target) as connection:
        wire = Wire(port_of(client))
        register_vector(connection)
        connection.execute(
            "INSERT INTO indexd.namespaces (namespace, dimension, created_at)"
            " VALUES ('bare', 384, now())"
        )
        connection.commit()
        for n, sent in enumerate(requests):
            started = time.perf_counter()
            wire.ask(sent)
            over_http.append(time.perf_counter() - started)
            started = time.perf_counter()
            bare_upsert(connection, f"bare-{n}", texts[n], vectors[n])
            by_hand.append(time.perf_counter() - started)
    ours, bare = quantile_ms(over_http[100:], 0.5), quantile_ms(by_hand[100:], 0.5)
    harness.print_table(
        "Upsert of one new document",
        ("what", "p50 ms", "p95 ms", "ratio of p50", "target"),
        (
            ("bare transaction", f"{bare:.2f}", f"{quantile_ms(by_hand[100:], 0.95):.2f}", "", ""),
            (
                "over HTTP",
                f"{ours:.2f}",
                f"{quantile_ms(over_http[100:], 0.95):.2f}",
                f"{ours / bare:.2f}",
                "2.5",
            ),
        ),
    )


def bare_upsert(connection: psycopg.Connection, doc_id: str, text: str, vector: Any) -> None:
    """The least that keeps the promises: dimension, unchanged, lock, chunks, counts, commit."""
    connection.execute(
        "SELECT dimension FROM indexd.namespaces WHERE namespace = 'bare' FOR KEY SHARE"
    )
    digest = hashlib.sha256(text.encode() + vector.tobytes()).digest()
    connection.execute(
        "SELECT digest FROM indexd.documents WHERE namespace = 'bare' AND doc_id = %s", (doc_id,)
    )
    connection.execute(
        """
        INSERT INTO indexd.documents (namespace, doc_id, ingested_at, chunk_count, digest, meta)
        VALUES ('bare', %s, now(), 1, %s, '{}')
        """,
        (doc_id, digest),
    )
    connection.execute(
        """
        INSERT INTO indexd.chunks (
            namespace, doc_id, ordinal, ingested_at, embedding, chunk_id, tags, meta, text
        )
        VALUES ('bare', %s, 0, now(), %s, %s, '{}', '{}', %s)
        """,
        (doc_id, vector, doc_id + "#0", text),
    )
    connection.execute(
        """
        UPDATE indexd.namespaces
           SET documents = documents + 1, chunks = chunks + 1
         WHERE namespace = 'bare'
        """
    )
    connection.commit()


HALF_LIFE = 2_592_000.0
"""Of the namespace chronik, in the policies that are shipped."""


def search_against_statement(url: str) -> None:
    """All queries over HTTP, and the statement they become in psycopg, in turn."""
    target = harness.empty_database(url, "searches")
    at = datetime.now(UTC)
    scanning = {"INDEXD_INDEX_LIMIT": "0"}
    with (
        harness.serving(target, environ=scanning) as (client, _),
        psycopg.connect(target, autocommit=True) as bare,
    ):
        wire = Wire(port_of(client))
        register_vector(bare)
        push(client, harness.DATA / "gitlog.parquet")
        bare.execute("VACUUM ANALYZE indexd.chunks")
        bare.execute("SET plan_cache_mode = force_custom_plan")
        over_http, by_hand = [], []
        for vector in [normalised(vector) for vector in embeddings(queries())]:
            sent = request("/index/search", {"namespace": "chronik", "embedding": vector.tolist()})
            started = time.perf_counter()
            msgspec.json.decode(wire.ask(sent))
            over_http.append(time.perf_counter() - started)
            values = {
                "namespace": "chronik",
                "vector": vector,
                "k": 10,
                "at": at,
                "half_life": HALF_LIFE,
            }
            started = time.perf_counter()
            bare.execute(statements.scan(Filters()), values | parameters(Filters())).fetchall()
            by_hand.append(time.perf_counter() - started)
    ours, statement = quantile_ms(over_http[20:], 0.5), quantile_ms(by_hand[20:], 0.5)
    harness.print_table(
        "Search of 40,000 chunks, exact",
        ("what", "p50 ms", "p95 ms", "more than the statement", "target"),
        (
            ("statement", f"{statement:.2f}", f"{quantile_ms(by_hand[20:], 0.95):.2f}", "", ""),
            (
                "over HTTP",
                f"{ours:.2f}",
                f"{quantile_ms(over_http[20:], 0.95):.2f}",
                f"{ours - statement:.2f} ms",
                f"{0.3 * statement + 0.5:.2f} ms",
            ),
        ),
    )


def memory_while_pushing(url: str) -> None:
    """Resident memory of server and pusher over a file ten times as large, and over the file."""
    rows = []
    table = corpus()
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, 10):
            file = Path(folder) / f"{times}.parquet"
            with pq.ParquetWriter(file, table.schema) as writer:
                for n in range(times):
                    ids = [f"{doc_id}-{n}" for doc_id in table["doc_id"].to_pylist()]
                    place = table.schema.get_field_index("doc_id")
                    writer.write_table(table.set_column(place, "doc_id", pa.array(ids)))
            with harness.serving(harness.empty_database(url, f"memory{times}")) as (client, server):
                command = [sys.executable, "-m", "indexd", "push", str(file)]
                with subprocess.Popen(
                    [*command, "--url", str(client.base_url)], stdout=subprocess.DEVNULL
                ) as pusher:
                    peak_server = peak_pusher = 0
                    while pusher.poll() is None:
                        peak_server = max(peak_server, resident(server.pid))
                        peak_pusher = max(peak_pusher, resident(pusher.pid))
                        time.sleep(0.2)
                stored = client.get("/index/stats").json()["total_documents"]
            rows.append((f"{stored:,}", f"{peak_server / 2**20:.0f}", f"{peak_pusher / 2**20:.0f}"))
    harness.print_table(
        "Memory while pushing", ("documents stored", "server, peak MB", "pusher, peak MB"), rows
    )


def resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
