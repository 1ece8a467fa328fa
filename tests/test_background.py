"""Work beside the requests goes on, whatever happens to it."""

import asyncio

import pytest

from indexd import supervised
from indexd.supervised import run_in_background


async def test_work_that_fails_begins_anew_and_ends_with_its_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervised, "AGAIN_SECONDS", 0.0)
    begun, third = 0, asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise ValueError("what nobody thought of")
        third.set()
        await asyncio.sleep(3600)

    async with run_in_background(work):
        await asyncio.wait_for(third.wait(), 5)
    await asyncio.sleep(0)
    assert begun == 3
    assert len(asyncio.all_tasks()) == 1


async def test_a_cancellation_that_gets_lost_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "AGAIN_SECONDS", 0.01)
    lost, waits = 0, asyncio.Event()

    async def work() -> None:
        nonlocal lost
        while True:
            try:
                waits.set()
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if lost == 2:
                    raise
                lost += 1

    async with asyncio.timeout(5):
        async with run_in_background(work):
            await waits.wait()
    assert lost == 2
