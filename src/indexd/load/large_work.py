"""Decodes large bodies in a thread, so that other requests need not wait for the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LARGE = 128 * 1024
"""Bytes: bodies up to this size are decoded on the event loop. Reading and checking a body of this
size takes about 3 ms; handing it to a thread costs 0.1 ms."""


class LargeWork:
    """Runs one large work at a time: a decoded body can take ten times the memory of its bytes."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(1)

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """Run `work` on a body of `size` bytes: directly up to LARGE bytes, else in a thread."""
        if size <= LARGE:
            return work()
        async with self._free:
            return await asyncio.to_thread(work)
