"""Twice the load the service can bear: what is answered, how fast, and how soon it recovers.

Open loop: requests are sent at their times whether or not earlier ones are answered. The load it
can bear is measured first, by as many clients at once as there are turns.
"""

import asyncio
import time
from collections import Counter
from typing import Any

import msgspec
import numpy as np

from benchmarks import harness
from benchmarks.http_clients import AsyncWires, port_of, request

SECONDS = 20
DOCUMENTS = 4_000
DIMENSION = 384
SETTINGS: dict[str, dict[str, str]] = {
    "defaults": {},
    "pool 2": {"INDEXD_POOL_SIZE": "2"},
}


class Answer(msgspec.Struct):
    at: float
    status: int
    seconds: float


async def _one(wires: AsyncWires, sent: bytes, into: list[Answer]) -> None:
    started = time.perf_counter()
    status = await wires.ask(sent)
    into.append(Answer(started, status, time.perf_counter() - started))


async def _closed(
    wires: AsyncWires, requests: list[bytes], clients: int, seconds: float
) -> list[Answer]:
    answers: list[Answer] = []
    until = time.perf_counter() + seconds

    async def ask(place: int) -> None:
        while time.perf_counter() < until:
            place += 1
            await _one(wires, requests[place % len(requests)], answers)

    await asyncio.gather(*(ask(number) for number in range(clients)))
    return answers


async def _open(
    wires: AsyncWires, requests: list[bytes], per_second: float, seconds: float
) -> list[Answer]:
    answers: list[Answer] = []
    tasks = []
    started = time.perf_counter()
    for number in range(int(per_second * seconds)):
        if (early := started + number / per_second - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        sent = requests[number % len(requests)]
        tasks.append(asyncio.create_task(_one(wires, sent, answers)))
    await asyncio.gather(*tasks)
    return answers


def _ms(answers: list[Answer], share: float) -> str:
    return f"{harness.quantile_ms([a.seconds for a in answers], share):.1f}" if answers else "-"


async def _measure(port: int, name: str, requests: list[bytes], turns: int) -> list[Any]:
    wires = AsyncWires(port)
    await _closed(wires, requests, 1, 2)
    alone = await _closed(wires, requests, 1, 4)
    most = await _closed(wires, requests, turns, 8)
    capacity = sum(a.status == 200 for a in most) / 8
    calm = await _open(wires, requests, capacity / 2, 8)
    loaded = await _open(wires, requests, 2 * capacity, SECONDS)
    began = min(a.at for a in loaded)
    # The first quarter is the burst that may wait.
    steady = [a for a in loaded if a.at > began + SECONDS / 2]
    accepted = [a for a in steady if a.status == 200]
    refused = [a for a in steady if a.status in (429, 503)]
    ended = time.perf_counter()
    recovery = "over 10"
    while time.perf_counter() < ended + 10:
        after = await _open(wires, requests, capacity / 2, 0.5)
        if all(a.status == 200 for a in after) and float(_ms(after, 0.95)) <= 1.5 * float(
            _ms(calm, 0.95)
        ):
            recovery = f"{time.perf_counter() - ended - 0.5:.1f}"
            break
    wires.close()
    statuses = Counter(a.status for a in loaded)
    return [
        name,
        f"{capacity:.0f}",
        _ms(alone, 0.95),
        _ms(calm, 0.95),
        _ms(most, 0.95),
        _ms(accepted, 0.95),
        f"{len(refused) / max(len(steady), 1):.0%}",
        _ms(refused, 0.95),
        f"{len(accepted) / (SECONDS / 2):.0f}",
        dict(sorted(statuses.items())),
        recovery,
    ]


def run() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(DOCUMENTS, DIMENSION)).round(4)
    lines = b"".join(
        msgspec.json.encode(
            {
                "doc_id": f"d{row}",
                "namespace": "load",
                "chunks": [{"text": "", "meta": {"embedding": vectors[row].tolist()}}],
            }
        )
        + b"\n"
        for row in range(DOCUMENTS)
    )
    requests = [
        request("/index/search", {"namespace": "load", "embedding": vectors[row].tolist()})
        for row in range(200)
    ]
    rows = []
    with harness.postgres() as server:
        url = harness.empty_database(server, "overload")
        for name, environ in SETTINGS.items():
            with harness.serving(url, environ) as (client, _):
                client.post("/index/bulk", content=lines, headers=harness.NDJSON).raise_for_status()
                turns = int(environ.get("INDEXD_POOL_SIZE", "16"))
                rows.append(asyncio.run(_measure(port_of(client), name, requests, turns)))
    harness.print_table(
        f"Twice the load that can be borne for {SECONDS} s, its second half; ms",
        [
            *(
                "settings",
                "requests/s borne",
                "p95 of one client",
                "p95 at half of it",
                "p95 at all of it",
            ),
            *(
                "p95 accepted",
                "refused",
                "p95 refused",
                "accepted/s",
                "answers of all",
                "recovery, s",
            ),
        ],
        rows,
    )
