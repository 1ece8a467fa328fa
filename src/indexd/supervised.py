"""Background tasks that run as long as the server, and start again after an error."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

import structlog

log = structlog.get_logger()

AGAIN_SECONDS = 1.0
"""Seconds to wait before work that failed is started again."""


@asynccontextmanager
async def run_in_background(work: Callable[[], Coroutine[None, None, None]]) -> AsyncIterator[None]:
    """Run `work` in a task while this context is open, and cancel it when the context closes.

    If `work` raises an exception, the exception is logged and `work` starts again.
    """

    async def supervised() -> None:
        while True:
            try:
                await work()
                return
            except Exception as error:
                log.error("background work failed, and begins anew", exc_info=error)
                await asyncio.sleep(AGAIN_SECONDS)

    task = asyncio.create_task(supervised())
    try:
        yield
    finally:
        while not task.done():
            # A library may lose a cancellation that comes at the instant at which its wait ends.
            task.cancel()
            await asyncio.wait([task], timeout=AGAIN_SECONDS)
        with suppress(asyncio.CancelledError):
            task.result()
