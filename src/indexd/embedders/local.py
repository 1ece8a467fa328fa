"""The embedder that comes along: a small model of many languages in processes of its own.

The package is the optional extra `local`. A process that dies is started again for the next text;
the requests whose texts it had fail. Queries have a process of their own, so that they do not wait
for the documents that are being stored.
"""

import asyncio
import itertools
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from indexd.embedders.protocol import Failure, Kind, Unusable
from indexd.local_model import engine, wire
from indexd.local_model.wire import Hello, Request, Vectors
from indexd.vectors import Model

DIGEST = 12
"""Number of hexadecimal digits of the weights' SHA-256 that are the revision."""

MODEL = Model(engine.NAME, engine.SHA256[:DIGEST])

PASSAGE_NICE = 5
"""How far the process of the documents steps back behind the server and its database."""

START_SECONDS = 60.0
"""Seconds within which a process must have read the weights. It takes one on an idle machine."""

END_SECONDS = 2.0
"""Seconds that a process has to end after its input did, before it is killed."""


def is_installed() -> bool:
    """Whether the package is there. Whether it works on this machine, its process finds out."""
    return find_spec(engine.PACKAGE) is not None


class Local:
    """`threads` is the number per process, `timeout` the seconds that one batch may take."""

    def __init__(self, *, threads: int, timeout: float) -> None:
        seconds = math.ceil(timeout)
        self._processes: dict[Kind, _Process] = {
            "query": _Process(threads, seconds, nice=0),
            "passage": _Process(threads, seconds, nice=PASSAGE_NICE),
        }

    @property
    def name(self) -> str:
        return "local"

    async def model(self) -> Model:
        """The model, once a process has found that its weights are those of the version."""
        await self._processes["query"].ready()
        return MODEL

    async def embed(self, texts: Sequence[str], kind: Kind) -> ArrayLike:
        for text in texts:
            try:
                engine.guarded(text)
            except ValueError as error:
                raise Failure("refused", str(error)) from error
        answer = await self._processes[kind].ask(kind, texts)
        if answer.refused is not None:
            raise Failure("refused", answer.refused)
        if len(answer.vectors) != len(texts) * engine.DIMENSION * 4:
            raise Failure("answer", "the local model answered what is not its vectors")
        return np.frombuffer(answer.vectors, dtype="<f4").reshape(len(texts), engine.DIMENSION)

    async def close(self) -> None:
        await asyncio.gather(*(process.close() for process in self._processes.values()))


class _Process:
    """A process of the model, which is started by the first text, and again after it died."""

    def __init__(self, threads: int, seconds: int, *, nice: int) -> None:
        self._arguments = [str(threads), str(seconds), str(nice)]
        self._threads = threads
        self._started: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Vectors]] = {}

    async def ready(self) -> None:
        """Wait until a process can take requests. Raises Failure."""
        await self._running()

    async def ask(self, kind: Kind, texts: Sequence[str]) -> Vectors:
        """Send the texts, and wait for the answer to them. Raises Failure."""
        process = await self._running()
        number = next(self._numbers)
        answered = asyncio.get_running_loop().create_future()
        self._waiting[number] = answered
        try:
            pipe = _input_of(process)
            pipe.write(wire.frame(Request(number, kind, list(texts))))
            await pipe.drain()
            answer: Vectors = await answered
            return answer
        except ConnectionError as error:
            raise _died(process.returncode) from error
        finally:
            # One that is cancelled no longer waits; its answer, when it comes, is passed over.
            del self._waiting[number]
            answered.cancel()

    async def _running(self) -> asyncio.subprocess.Process:
        """The process, started if need be. One that is being started goes on for the next caller
        where this one is cancelled.
        """
        if self._started is None or (self._started.done() and self._is_over()):
            self._started = asyncio.create_task(self._start())
        await asyncio.shield(self._started)
        assert self._process is not None  # noqa: S101 (it was just started)
        return self._process

    def _is_over(self) -> bool:
        return self._process is None or self._reader is None or self._reader.done()

    async def _start(self) -> None:
        """Start a process, after the last one, and wait for its first message."""
        await self._end()
        count = str(self._threads)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "indexd.local_model", *self._arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise Failure(
                "unreachable", f"the local model cannot be started ({type(error).__name__})"
            ) from error
        self._process = process
        try:
            async with asyncio.timeout(START_SECONDS):
                hello = msgspec.msgpack.decode(await _message(process), type=Hello)
        except (TimeoutError, EOFError, msgspec.MsgspecError) as error:
            await self._end()
            raise _died(process.returncode) from error
        if hello.problem is not None:
            await self._end()
            raise Unusable(hello.problem)
        self._reader = asyncio.create_task(self._read(process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out the answers, until the process ends; then all who wait learn of it."""
        try:
            while True:
                answer = msgspec.msgpack.decode(await _message(process), type=Vectors)
                waiting = self._waiting.get(answer.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except (EOFError, OSError, msgspec.MsgspecError):
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(_died(process.returncode))

    async def close(self) -> None:
        if self._started is not None:
            self._started.cancel()
            await asyncio.wait([self._started])
        await self._end()

    async def _end(self) -> None:
        """End the process by ending its input, and kill it where that does not help."""
        if self._process is None:
            return
        _input_of(self._process).close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
        self._process = None
        self._reader = None


def _died(code: int | None) -> Failure:
    how = "" if code is None else f" with status {code}"
    return Failure("unreachable", f"the process of the local model died{how}")


def _input_of(process: asyncio.subprocess.Process) -> asyncio.StreamWriter:
    assert process.stdin is not None  # noqa: S101 (it was started with pipes)
    return process.stdin


async def _message(process: asyncio.subprocess.Process) -> bytes:
    """Raises EOFError where the process has ended, or says what is no message."""
    assert process.stdout is not None  # noqa: S101 (it was started with pipes)
    (length,) = wire.LENGTH.unpack(await process.stdout.readexactly(wire.LENGTH.size))
    if length > wire.MOST_BYTES:
        raise EOFError
    return await process.stdout.readexactly(length)
