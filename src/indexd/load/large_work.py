"""Work on large bodies, away from the event loop, so that no other request waits for it."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LARGE = 128 * 1024
"""Bytes of a body. To read and check one of this size takes 3 ms; a thread costs 0.1 ms."""


class LargeWork:
    """One at a time, for what a body is decoded to may take ten times its memory."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(1)

    async def run(self, size: int, work: Callable[[], T]) -> T:
        """Do the work on so many bytes: here where they are few, else in a thread."""
        if size <= LARGE:
            return work()
        async with self._free:
            return await asyncio.to_thread(work)
