"""What authentication adds to a request, and how soon a revoked key is refused everywhere."""

import asyncio
import subprocess
import sys
import time
from datetime import UTC, datetime

import httpx
import psycopg

from benchmarks import harness
from indexd.store import keys

ROUNDS = 8
REQUESTS = 1_000
SEARCH = {"namespace": "notes", "embedding": [1.0, 0.0], "k": 5}
DOCUMENT = {
    "doc_id": "a",
    "namespace": "notes",
    "chunks": [{"text": "a", "meta": {"embedding": [1.0, 0.0]}}],
}


async def _key(url: str, name: str) -> dict[str, str]:
    secret = keys.new_secret()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await keys.create(connection, keys.NewKey(secret, name, "admin"), at=datetime.now(UTC))
    return {"Authorization": f"Bearer {secret}"}


def _durations(client: httpx.Client, header: dict[str, str]) -> list[float]:
    return [
        harness.seconds(lambda: client.post("/index/search", json=SEARCH, headers=header))
        for _ in range(REQUESTS)
    ]


def run() -> None:
    with harness.postgres() as server:
        url = harness.empty_database(server, "auth")
        header = asyncio.run(_key(url, "bench"))
        with (
            harness.serving(url, {"INDEXD_AUTH": "off"}) as (without, _),
            harness.serving(url, {"INDEXD_AUTH": "keys"}) as (guarded, _),
        ):
            without.post("/index/upsert", json=DOCUMENT).raise_for_status()
            guarded.post("/index/search", json=SEARCH, headers=header).raise_for_status()
            off: list[float] = []
            on: list[float] = []
            for _ in range(ROUNDS):  # in turns, so that the machine's moods hit both
                off += _durations(without, header)
                on += _durations(guarded, header)
            harness.print_table(
                f"A search of one document, {ROUNDS * REQUESTS:,} requests each, ms",
                ["", "p50", "p95"],
                [
                    [name, *(f"{harness.quantile_ms(found, share):.3f}" for share in (0.5, 0.95))]
                    for name, found in (("INDEXD_AUTH=off", off), ("INDEXD_AUTH=keys", on))
                ],
            )
            _revocation(url, guarded)


def _revocation(url: str, client: httpx.Client) -> None:
    """From the commit of the revocation to the first 401, asking all the time; and the command."""
    delays = []
    for number in range(20):
        header = asyncio.run(_key(url, f"revoked {number}"))
        client.post("/index/search", json=SEARCH, headers=header).raise_for_status()
        asyncio.run(_revoke(url, f"revoked {number}"))
        committed = time.perf_counter()
        while client.post("/index/search", json=SEARCH, headers=header).status_code != 401:
            pass
        delays.append(time.perf_counter() - committed)
    late = 0
    for number in range(5):
        header = asyncio.run(_key(url, f"by command {number}"))
        client.post("/index/search", json=SEARCH, headers=header).raise_for_status()
        command = [sys.executable, "-m", "indexd", "keys", "revoke", f"by command {number}"]
        subprocess.run([*command, "--database-url", url], check=True, capture_output=True)
        late += client.post("/index/search", json=SEARCH, headers=header).status_code != 401
    harness.print_table(
        "From the commit of a revocation to the answer 401, ms",
        ["p50", "worst of 20", "accepted after `indexd keys revoke` returned, of 5"],
        [
            [
                f"{harness.quantile_ms(delays, 0.5):.1f}",
                f"{harness.quantile_ms(delays, 1):.1f}",
                late,
            ]
        ],
    )


async def _revoke(url: str, name: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await keys.revoke(connection, name, at=datetime.now(UTC))
