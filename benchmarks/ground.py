"""What every benchmark stands on: the corpus, a database, a server process, a table."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pyarrow.parquet as pq
from numpy.typing import NDArray

from indexd import embedded, migrate

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


@contextmanager
def serving(
    url: str, environ: Mapping[str, str] | None = None
) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "indexd", "serve", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--database-url", url],
        env={**os.environ, **(environ or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
                for _ in range(300):
                    try:
                        if client.get("/readyz").status_code == 200:
                            break
                    except httpx.TransportError:
                        time.sleep(0.1)
                time.sleep(0.5)
                if process.poll() is not None:
                    sys.exit("the server ended at once; run it by hand to see why")
                yield client, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


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
