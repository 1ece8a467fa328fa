"""`python -m benchmarks soak --minutes 10 [--chaos]`: mixed load with forgetting, for long.

Writers replace and delete documents so that their number stays the same; searchers search. Some of
both send texts, which the server has to have embedded. What must stay flat is measured every ten
seconds: memory, connections, disk, latency.

With --chaos the database is restarted every 20 s, a worker killed every 30 s, and of each 10 s the
embedder fails for 3; then answers of 503 and broken connections are expected, and no other failure.
A document whose write was accepted must be there at the end, and one whose deletion was accepted,
or that could not be embedded, must not. The last 15 s are without chaos.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path

import httpx
import msgspec
import numpy as np
import psutil
import psycopg
from tests import processes
from tests.fake_embedders import running

from benchmarks import harness
from benchmarks.load import chaos, samples
from benchmarks.load.samples import Sample
from indexd.db import migrate

WORKERS = 2
WRITERS = 4
SEARCHERS = 6
BY_TEXT = 2
"""Number of writers that send no vectors, and of searchers that send none."""
KEPT = 500
"""Documents of each writer's namespace."""
DIMENSION = 64
PAUSE = 0.01
"""Seconds between a client's requests: load, not overload."""
PATIENCE = 30
"""Seconds after which a client gives up, which nothing explains."""
EMBEDDER_TIMEOUT = "2"
"""Less than a failure lasts, so that there are timeouts."""
CALM = 15.0
"""Seconds at the end in which nothing is broken any more."""
RECOVERED = 5.0
"""Seconds at the very end in which nothing may fail."""

NOT_EMBEDDED = "503 embedder_unavailable"


class Load:
    """What the clients met, and what must be there of each namespace; `late` is of the end."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.answers: Counter[tuple[str, str]] = Counter()
        self.late: Counter[tuple[str, str]] = Counter()
        self.searches: list[float] = []
        self.answered = time.monotonic()
        self.longest_gap = 0.0
        self.present: dict[str, set[str]] = {}
        self.unsure: dict[str, set[str]] = {}

    @property
    def lasts(self) -> bool:
        return time.monotonic() < self.until


async def _post(client: httpx.AsyncClient, load: Load, kind: str, path: str, body: object) -> str:
    """The status of the answer, with the code of an error, or how the connection ended."""
    try:
        answer = await client.post(path, content=msgspec.json.encode(body), headers=harness.JSON)
        found = _outcome(answer)
    except httpx.TimeoutException:
        found = f"not within {PATIENCE} s"
    except httpx.TransportError:
        found = "cut off"
    load.answers[kind, found] += 1
    now = time.monotonic()
    load.longest_gap = max(load.longest_gap, now - load.answered)
    if found == "200":
        load.answered = now
    if now > load.until - RECOVERED:
        load.late[kind, found] += 1
    return found


def _outcome(answer: httpx.Response) -> str:
    if answer.status_code == 200:
        return "200"
    try:
        return f"{answer.status_code} {answer.json()['code']}"
    except (ValueError, LookupError, TypeError):
        return f"{answer.status_code} without a code"


def _chunks(number: int, rng: np.random.Generator, *, by_text: bool) -> list[object]:
    if by_text:
        return [{"text": f"word{number} and more"}, {"text": f"word{number} again"}]
    vectors = rng.normal(size=(2, DIMENSION)).round(4).tolist()
    return [{"text": f"word{number}", "meta": {"embedding": vector}} for vector in vectors]


async def _write(client: httpx.AsyncClient, load: Load, namespace: str, *, by_text: bool) -> None:
    """One who writes knows what is there, but for requests that were not answered."""
    rng = np.random.default_rng(len(load.present))
    there = load.present[namespace] = set()
    unsure = load.unsure[namespace] = set()
    order: deque[str] = deque()
    kind = "upsert by text" if by_text else "upsert"
    number = 0
    while load.lasts:
        number += 1
        doc_id = f"d{number}" if number % 3 else f"d{max(1, number - 2)}"
        body = {
            "doc_id": doc_id,
            "namespace": namespace,
            "chunks": _chunks(number, rng, by_text=by_text),
            "half_life_seconds": 60,
        }
        found = await _post(client, load, kind, "/index/upsert", body)
        if found == "200":
            there.add(doc_id)
            unsure.discard(doc_id)
        elif found != NOT_EMBEDDED:
            unsure.add(doc_id)
        order.append(doc_id)
        if len(order) > KEPT:
            gone = order.popleft()
            if gone not in order:
                body = {"doc_id": gone, "namespace": namespace}
                if await _post(client, load, "delete", "/index/delete", body) == "200":
                    there.discard(gone)
                    unsure.discard(gone)
                else:
                    unsure.add(gone)
        await asyncio.sleep(PAUSE)


async def _search(client: httpx.AsyncClient, load: Load, *, by_text: bool) -> None:
    rng = np.random.default_rng(7)
    kind = "search by text" if by_text else "search"
    while load.lasts:
        asked: dict[str, object] = (
            {"query": f"word{rng.integers(10 * KEPT)} and more"}
            if by_text
            else {"embedding": rng.normal(size=DIMENSION).round(4).tolist()}
        )
        namespace = f"soak {random.randrange(WRITERS)}"  # noqa: S311 (load)
        started = time.perf_counter()
        found = await _post(client, load, kind, "/index/search", {"namespace": namespace} | asked)
        if found == "200" and not by_text:
            load.searches.append(time.perf_counter() - started)
        await asyncio.sleep(PAUSE)


async def _watch(server: psutil.Process, url: str, load: Load) -> list[Sample]:
    found: list[Sample] = []
    began = time.monotonic()
    while load.lasts:
        await asyncio.sleep(samples.EVERY)
        searches, load.searches = load.searches, []
        at = time.monotonic() - began
        found.append(await asyncio.to_thread(samples.taken, server, url, at, searches))
        print(*samples.shown(found[-1]), sep="\t", flush=True)
    return found


async def _run(
    url: str,
    base_url: str,
    server: psutil.Process,
    seconds: float,
    damage: Callable[[float], Coroutine[None, None, None]] | None,
) -> tuple[list[Sample], Load]:
    load = Load(time.monotonic() + seconds)
    async with httpx.AsyncClient(base_url=base_url, timeout=PATIENCE) as client:
        work: list[Coroutine[None, None, None]] = [
            _write(client, load, f"soak {n}", by_text=n < BY_TEXT) for n in range(WRITERS)
        ]
        work += [_search(client, load, by_text=n < BY_TEXT) for n in range(SEARCHERS)]
        if damage:
            work.append(damage(load.until - CALM))
        watching = asyncio.create_task(_watch(server, url, load))
        await asyncio.gather(*work)
        return await watching, load


def _verify(url: str, load: Load) -> tuple[int, int]:
    """Documents that were accepted and are missing, and those that must not be there and are."""
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


def _unexpected(load: Load, *, with_chaos: bool) -> dict[str, int]:
    """Answers that nothing which was broken explains."""
    answers = {
        (kind, found): count
        for (kind, found), count in load.answers.items()
        if found != "200" and not (with_chaos and _is_explained(kind, found))
    }
    late = {what: count for what, count in load.late.items() if what[1] != "200"}
    return _named(answers) | {f"{what} at the end": n for what, n in _named(late).items()}


def _is_explained(kind: str, found: str) -> bool:
    if found == NOT_EMBEDDED:
        return kind.endswith("by text")
    return found.startswith("503 ") or found == "cut off"


def _named(counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {" ".join(what): count for what, count in sorted(counts.items())}


def run(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--chaos", action="store_true")
    parser.add_argument("--log", type=Path, help="file for the server's log, which is kept")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="indexd-soak-") as home, running("ollama") as embedder:
        Path(home).chmod(0o755)
        embedder.dimension = DIMENSION
        log = chosen.log or Path(home) / "server.log"
        environ = {
            "INDEXD_WORKERS": str(WORKERS),
            "INDEXD_EMBEDDER_PROVIDER": "ollama",
            "INDEXD_EMBEDDER_BASE_URL": embedder.url,
            "INDEXD_EMBEDDER_MODEL": "all-minilm",
            "INDEXD_EMBEDDER_TIMEOUT": EMBEDDER_TIMEOUT,
        }
        with harness.postgres(Path(home)) as url, log.open("wb") as out:
            migrate.upgrade(url)
            with harness.serving(url, environ, out) as (client, server):
                process = psutil.Process(server.pid)
                damage = partial(chaos.wreak, Path(home) / "postgres", process, embedder)
                found, load = asyncio.run(
                    _run(
                        url,
                        str(client.base_url),
                        process,
                        chosen.minutes * 60,
                        damage if chosen.chaos else None,
                    )
                )
                harness.await_ready(client, server)
                missing, extra = _verify(url, load)
                workers = len(processes.workers(process))
        tracebacks = log.read_text().count("request failed")
    samples.print_tables(
        f"Soak of {chosen.minutes:g} minutes{', with chaos' if chosen.chaos else ''}", found
    )
    print("answers:", _named(load.answers))
    print("unexpected answers:", _unexpected(load, with_chaos=chosen.chaos))
    print(f"accepted and missing: {missing}; deleted or not embedded, and there: {extra}")
    print(f"longest without an answer of 200: {load.longest_gap:.1f} s")
    print(f"workers at the end: {workers} of {WORKERS}")
    print(f"errors in the log: {tracebacks}; exit code {server.returncode}")
