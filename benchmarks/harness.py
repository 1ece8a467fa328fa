"""What every benchmark stands on: the corpus, a database, its rows, a server process, a table."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
import psycopg
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from indexd.db import embedded, migrate
from indexd.store.writing import chunk_fields
from indexd.store.writing.chunk_rows import CHUNK_COLUMNS

DATA = Path(os.environ.get("BENCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}


def corpus() -> Any:
    """The real corpus as a table; the run ends with a reason where it is missing."""
    file = DATA / "gitlog.parquet"
    if not file.exists():
        sys.exit(f"no corpus at {file}; set BENCH_DATA")
    return pq.read_table(file)


def queries() -> Any:
    return pq.read_table(DATA / "queries.parquet")


def embeddings(table: Any) -> NDArray[np.float32]:
    """Shape (rows, dimension), as they are in the file."""
    column = table["embedding"].combine_chunks()
    flat: NDArray[np.float32] = column.values.to_numpy()
    return flat.reshape(len(column), -1).astype(np.float32)


@contextmanager
def postgres(kept: Path | None = None) -> Iterator[str]:
    """A server of the run's own with the settings that users get; gives the URL of a database.

    Its data is left for the next run in the folder `kept`, if one is given.
    """
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
        with embedded.postgres(kept) as url:
            yield url
        return
    with tempfile.TemporaryDirectory(prefix="indexd-bench-") as folder:
        Path(folder).chmod(0o755)
        with embedded.postgres(Path(folder)) as url:
            yield url


def empty_database(url: str, name: str) -> str:
    """A new migrated database on the same server."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}"')
    made = url.replace("/indexd?", f"/{name}?")
    migrate.upgrade(made)
    return made


WRITE_FIELDS = f"""
    {chunk_fields.INSERT_INTO}
    SELECT {chunk_fields.OF_CHUNK}
      FROM indexd.chunks AS chunk
      JOIN indexd.documents AS document USING (namespace, doc_id)
     {chunk_fields.WEIGHED}
     WHERE chunk.namespace = %(namespace)s
"""


def copy_rows(url: str, count: int, rows: Callable[[], Iterable[tuple[Any, ...]]]) -> None:
    """What a loader written for these tables alone would do for one namespace.

    `rows` are `count` documents of one chunk, in the order of CHUNK_COLUMNS but for the generation.
    It is called twice, for documents are written before chunks.
    """
    namespace, dimension = next((row[0], len(row[5])) for row in rows())
    with psycopg.connect(url) as connection:
        register_vector(connection)
        cursor = connection.cursor()
        cursor.execute(
            "INSERT INTO indexd.namespaces (namespace, dimension, documents, chunks, created_at)"
            " VALUES (%s, %s, %s, %s, now())",
            (namespace, dimension, count, count),
        )
        with cursor.copy("""
            COPY indexd.documents (
                namespace, doc_id, ingested_at, half_life_seconds, chunk_count, digest, meta
            ) FROM STDIN (FORMAT BINARY)
        """) as copy:
            copy.set_types(["text", "text", "timestamptz", "float8", "int4", "bytea", "jsonb"])
            for _, doc_id, _, ingested_at, half_life, vector, *_ in rows():
                digest = hashlib.sha256(vector.tobytes()).digest()
                copy.write_row((namespace, doc_id, ingested_at, half_life, 1, digest, Jsonb({})))
        with cursor.copy(
            f"COPY indexd.chunks ({', '.join(CHUNK_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
        ) as copy:
            copy.set_types(list(CHUNK_COLUMNS.values()))
            for row in rows():
                copy.write_row((*row, 0))
        cursor.execute(WRITE_FIELDS, {"namespace": namespace, "average": None})


def serving(
    url: str,
    environ: Mapping[str, str] | None = None,
    output: int | IO[bytes] = subprocess.DEVNULL,
) -> AbstractContextManager[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """The service over this database, as users start it."""
    command = [sys.executable, "-m", "indexd", "serve", "--database-url", url]
    return listening(command, environ, output)


@contextmanager
def listening(
    command: Sequence[str],
    environ: Mapping[str, str] | None = None,
    output: int | IO[bytes] = subprocess.DEVNULL,
) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    """A server that takes --port and has /readyz, from when it is ready until it has ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [*command, "--port", str(port)],
        env={**os.environ, **(environ or {})},
        stdout=output,
        stderr=output,
    ) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
                await_ready(client, process)
                yield client, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def await_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    """End the run with a reason where that never happens."""
    for _ in range(600):
        if process.poll() is not None:
            sys.exit("the server ended; run it by hand to see why")
        with suppress(httpx.TransportError):
            if client.get("/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    sys.exit("the server does not become ready")


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def quantile_ms(durations: Sequence[float], share: float) -> float:
    return float(np.quantile(durations, share)) * 1000


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Print a Markdown table, and return it."""
    lines = [
        f"### {title}",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
        "",
    ]
    text = "\n".join(lines)
    print(text, flush=True)
    return text
