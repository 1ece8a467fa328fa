"""`python -m benchmarks.soak --minutes 10 [--chaos]`: mixed load with forgetting, for long.

Writers replace and delete documents so that their number stays the same; searchers search. What
must stay flat is measured every ten seconds: memory, connections, disk, latency. With --chaos the
database is restarted every 20 s and a worker killed every 30 s; then answers of 503 and broken
connections are expected, and no other failure. A document whose write was accepted must be there at
the end, and one whose deletion was accepted must not.
"""

import argparse
import asyncio
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter, deque
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import numpy as np
import psutil
import psycopg

from benchmarks import ground
from indexd import embedded, migrate

WORKERS = 2
WRITERS = 4
SEARCHERS = 6
KEPT = 1_500
"""Documents of each writer's namespace."""
DIMENSION = 64
SAMPLE = 10.0
PAUSE = 0.01
"""Seconds between a client's requests: load, not overload."""


class Load:
    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.searches: list[float] = []
        self.present: dict[str, set[str]] = {}
        self.unsure: dict[str, set[str]] = {}


async def _post(client: httpx.AsyncClient, load: Load, path: str, body: object) -> int:
    try:
        answer = await client.post(path, content=msgspec.json.encode(body), headers=ground.JSON)
        status = answer.status_code
    except httpx.TransportError:
        status = 0
    load.statuses[f"{path.rpartition('/')[2]} {status or 'cut off'}"] += 1
    return status


async def _write(client: httpx.AsyncClient, load: Load, namespace: str, until: float) -> None:
    """One who writes knows what is there, but for requests that were not answered."""
    rng = np.random.default_rng(len(load.present))
    there = load.present[namespace] = set()
    unsure = load.unsure[namespace] = set()
    order: deque[str] = deque()
    number = 0
    while time.monotonic() < until:
        number += 1
        doc_id = f"d{number}" if number % 3 else f"d{max(1, number - 2)}"
        vectors = rng.normal(size=(2, DIMENSION)).round(4).tolist()
        chunks = [{"text": f"word{number}", "meta": {"embedding": vector}} for vector in vectors]
        status = await _post(
            client,
            load,
            "/index/upsert",
            {"doc_id": doc_id, "namespace": namespace, "chunks": chunks, "half_life_seconds": 60},
        )
        if status == 200:
            there.add(doc_id)
            unsure.discard(doc_id)
        else:
            unsure.add(doc_id)
        order.append(doc_id)
        if len(order) > KEPT:
            gone = order.popleft()
            if gone not in order:
                body = {"doc_id": gone, "namespace": namespace}
                if await _post(client, load, "/index/delete", body) == 200:
                    there.discard(gone)
                    unsure.discard(gone)
                else:
                    unsure.add(gone)
        await asyncio.sleep(PAUSE)


async def _search(client: httpx.AsyncClient, load: Load, until: float) -> None:
    rng = np.random.default_rng(7)
    while time.monotonic() < until:
        vector = rng.normal(size=DIMENSION).round(4).tolist()
        namespace = f"soak {random.randrange(WRITERS)}"  # noqa: S311 (load)
        started = time.perf_counter()
        if (
            await _post(
                client, load, "/index/search", {"namespace": namespace, "embedding": vector}
            )
            == 200
        ):
            load.searches.append(time.perf_counter() - started)
        await asyncio.sleep(PAUSE)


def _sample(process: psutil.Process, url: str, load: Load, at: float) -> list[object]:
    memory = 0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            memory += one.memory_info().rss
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=2) as connection:
            row = connection.execute(
                "SELECT count(*), pg_database_size(current_database()) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE 'indexd%'"
            ).fetchone()
        connections, size = row or (0, 0)
    except psycopg.Error:
        connections, size = "-", 0
    found, load.searches = load.searches, []
    return [
        f"{at:.0f}",
        f"{memory / 2**20:.0f}",
        connections,
        f"{size / 2**20:.0f}" if size else "-",
        len(found),
        *(f"{ground.quantile_ms(found, q):.1f}" if found else "-" for q in (0.5, 0.95)),
    ]


async def _watch(
    process: psutil.Process, url: str, load: Load, began: float, until: float
) -> list[list[object]]:
    rows = []
    while time.monotonic() < until:
        await asyncio.sleep(SAMPLE)
        rows.append(await asyncio.to_thread(_sample, process, url, load, time.monotonic() - began))
        print(*rows[-1], sep="\t", flush=True)
    return rows


async def _break(folder: Path, process: psutil.Process, until: float) -> None:
    """The database every 20 s, a worker every 30 s."""
    second = 0
    while time.monotonic() < until - 15:
        await asyncio.sleep(10)
        second += 10
        if second % 20 == 0:
            await asyncio.to_thread(_restart, folder)
        if second % 30 == 0:
            with suppress(psutil.NoSuchProcess):
                workers = [one for one in process.children() if "spawn_main" in one.cmdline()[-2]]
                random.choice(workers).send_signal(signal.SIGKILL)  # noqa: S311 (load)


def _restart(folder: Path) -> None:
    control = [str(embedded.BINARIES / "pg_ctl"), "-w", "-m", "fast", "-D", str(folder)]
    user = {"user": "pgserver"} if os.geteuid() == 0 else {}
    options = '"' + (folder / "postmaster.opts").read_text().partition('"')[2].strip()
    subprocess.run(
        [*control, "-o", options, "-l", str(folder / "log"), "restart"],
        check=True,
        stdout=subprocess.DEVNULL,
        **user,  # type: ignore[call-overload]
    )


async def _run(
    url: str, base_url: str, folder: Path, process: psutil.Process, *, seconds: float, chaos: bool
) -> tuple[list[list[object]], Load]:
    load, began = Load(), time.monotonic()
    until = began + seconds
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as client:
        work: list[Coroutine[None, None, None]] = [
            _write(client, load, f"soak {n}", until) for n in range(WRITERS)
        ]
        work += [_search(client, load, until) for _ in range(SEARCHERS)]
        if chaos:
            work.append(_break(folder, process, until))
        watching = asyncio.create_task(_watch(process, url, load, began, until))
        await asyncio.gather(*work)
        return await watching, load


def _verify(url: str, load: Load) -> tuple[int, int]:
    """Documents that were accepted and are missing, and those deleted and still there."""
    missing = extra = 0
    with psycopg.connect(url) as connection:
        for namespace, present in load.present.items():
            rows = connection.execute(
                "SELECT doc_id FROM indexd.documents WHERE namespace = %s", [namespace]
            ).fetchall()
            found, unsure = {doc_id for (doc_id,) in rows}, load.unsure[namespace]
            missing += len(present - found - unsure)
            extra += len(found - present - unsure)
    return missing, extra


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--chaos", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="indexd-soak-") as home:
        Path(home).chmod(0o755)
        log = Path(home) / "server.log"
        with ground.postgres(Path(home)) as url, log.open("wb") as out:
            migrate.upgrade(url)
            with ground.serving(url, {"INDEXD_WORKERS": str(WORKERS)}, out) as (client, server):
                rows, load = asyncio.run(
                    _run(
                        url,
                        str(client.base_url),
                        Path(home) / "postgres",
                        psutil.Process(server.pid),
                        seconds=chosen.minutes * 60,
                        chaos=chosen.chaos,
                    )
                )
                ground.await_ready(client, server)
                missing, extra = _verify(url, load)
        tracebacks = log.read_text().count("request failed")
    ground.print_table(
        f"Soak of {chosen.minutes:g} minutes{', with chaos' if chosen.chaos else ''}",
        ["s", "memory MiB", "connections", "disk MiB", "searches", "p50 ms", "p95 ms"],
        rows[:: max(1, len(rows) // 12)],
    )
    print("answers:", dict(sorted(load.statuses.items())))
    print(f"accepted and missing: {missing}; deleted and there: {extra}")
    print(f"errors in the log: {tracebacks}; exit code {server.returncode}")


if __name__ == "__main__":
    main()
