"""What the soak breaks: the database, the workers, and the embedder."""

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import psutil
from tests.fake_embedders import Fake, Mode
from tests.processes import workers

from indexd.db import embedded

OUT_OF_STEP = 5
"""Seconds before it begins, so that what is sampled is not what was broken that moment."""
DATABASE_EVERY = 20
WORKER_EVERY = 30
EMBEDDER_WORKS = 7
EMBEDDER_FAILS = 3
FAILURES: tuple[Mode, ...] = ("refused", "error", "hang")
"""Of the embedder, in turn: it refuses connections, answers 500, or does not answer."""


async def wreak(folder: Path, server: psutil.Process, embedder: Fake, until: float) -> None:
    """All three, each at its own pace; nothing stays broken."""
    await asyncio.sleep(OUT_OF_STEP)
    await asyncio.gather(
        _restart_database(folder, until), _kill_workers(server, until), _flap(embedder, until)
    )


async def _restart_database(folder: Path, until: float) -> None:
    async for _ in _every(DATABASE_EVERY, until):
        await asyncio.to_thread(_restart, folder)


def _restart(folder: Path) -> None:
    control = [str(embedded.BINARIES / "pg_ctl"), "-w", "-m", "fast", "-D", str(folder)]
    user = {"user": "pgserver"} if os.geteuid() == 0 else {}
    subprocess.run(
        [*control, "-l", str(folder / "log"), "restart"],
        check=True,
        stdout=subprocess.DEVNULL,
        **user,  # type: ignore[call-overload]
    )


async def _kill_workers(server: psutil.Process, until: float) -> None:
    async for _ in _every(WORKER_EVERY, until):
        if alive := workers(server):
            with suppress(psutil.NoSuchProcess):
                random.choice(alive).send_signal(signal.SIGKILL)  # noqa: S311 (load)


async def _flap(embedder: Fake, until: float) -> None:
    failures = cycle(FAILURES)
    async for _ in _every(EMBEDDER_WORKS + EMBEDDER_FAILS, until):
        await asyncio.to_thread(embedder.become, next(failures))
        await asyncio.sleep(EMBEDDER_FAILS)
        await asyncio.to_thread(embedder.become, "works")


async def _every(seconds: float, until: float) -> AsyncIterator[None]:
    """Each `seconds` from now on, whatever is done in between."""
    at = time.monotonic() + seconds
    while at < until:
        await asyncio.sleep(at - time.monotonic())
        yield
        at += seconds
