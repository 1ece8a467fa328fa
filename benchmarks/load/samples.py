"""What a server and its database take up in the course of time."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from math import nan
from statistics import median

import msgspec
import psutil
import psycopg
from tests.processes import workers

from benchmarks import harness

EVERY = 10.0
"""Seconds from sample to sample."""

HEAD = [
    *("s", "workers", "memory MiB", "connections", "disk MiB"),
    *("searches", "p50 ms", "p95 ms"),
]


class Sample(msgspec.Struct, frozen=True):
    """`connections` and `disk` are None while the database does not answer."""

    at: float
    workers: int
    memory: float
    connections: float | None
    disk: float | None
    searches: list[float]


GROWING: dict[str, Callable[[Sample], float | None]] = {
    "memory MiB": lambda sample: sample.memory,
    "connections": lambda sample: sample.connections,
    "disk MiB": lambda sample: sample.disk,
}


def taken(server: psutil.Process, url: str, at: float, searches: list[float]) -> Sample:
    """Of the server with all its workers; `searches` are the seconds of those since the last."""
    connections, disk = _database(url)
    return Sample(at, len(workers(server)), _memory(server), connections, disk, searches)


def _memory(server: psutil.Process) -> float:
    found = 0
    for process in [server, *server.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            found += process.memory_info().rss
    return found / 2**20


def _database(url: str) -> tuple[float, float] | tuple[None, None]:
    with (
        suppress(psycopg.Error),
        psycopg.connect(url, autocommit=True, connect_timeout=2) as connection,
    ):
        row = connection.execute("""
            SELECT count(*), pg_database_size(current_database())
              FROM pg_stat_activity
             WHERE datname = current_database()
               AND application_name LIKE 'indexd%'
        """).fetchone()
        if row:
            return row[0], row[1] / 2**20
    return None, None


def shown(sample: Sample) -> list[str]:
    """In the order of HEAD."""
    return [
        f"{sample.at:.0f}",
        str(sample.workers),
        *(_whole(value) for value in (sample.memory, sample.connections, sample.disk)),
        str(len(sample.searches)),
        *(
            f"{harness.quantile_ms(sample.searches, share):.1f}" if sample.searches else "-"
            for share in (0.5, 0.95)
        ),
    ]


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def print_tables(title: str, samples: Sequence[Sample]) -> None:
    """A dozen of the samples, and what grew between the medians of the first and last third."""
    shown_ones = samples[:: max(1, len(samples) // 12)]
    harness.print_table(title, HEAD, [shown(sample) for sample in shown_ones])
    third = max(1, len(samples) // 3)
    rows = []
    for name, value_of in GROWING.items():
        first, last = (
            _median([value_of(sample) for sample in part])
            for part in (samples[:third], samples[-third:])
        )
        rows.append([name, f"{first:.0f}", f"{last:.0f}", f"{last - first:+.1f}"])
    harness.print_table("Growth", ["", "first third", "last third", "more by"], rows)


def _median(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return median(known) if known else nan
