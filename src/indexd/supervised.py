"""Work that goes on beside the requests, as long as its server lives."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

import structlog

log = structlog.get_logger()

AGAIN_SECONDS = 1.0


@asynccontextmanager
async def run_in_background(work: Callable[[], Coroutine[None, None, None]]) -> AsyncIterator[None]:
    """Have `work` done as long as this lasts; it is cut off at the end.

    Where it fails, which it should not, the log says so and it begins anew.
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
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
