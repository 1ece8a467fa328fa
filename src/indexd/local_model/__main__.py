"""The process that runs the model: `python -m indexd.local_model THREADS SECONDS NICE`.

Reads requests from standard input and answers on standard output, until its input ends: when the
server is gone, so is this. It ends by SIGALRM if one request takes longer than SECONDS, because
Python cannot stop C code that hangs.
"""

import os
import signal
import sys
from typing import Any, BinaryIO

import msgspec

from indexd.local_model import wire
from indexd.local_model.engine import DIMENSION, Engine, ModelUnusable
from indexd.local_model.wire import Hello, Request, Vectors

MEMORY_BYTES = 4 * 1024**3
"""Bytes of address space at most. The model needs a twentieth of that; a fault could take all."""


def main() -> None:
    threads, seconds, nice = (int(argument) for argument in sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this one
    _limit()
    os.nice(nice)
    # What C code prints must not get among the answers.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    try:
        engine = Engine(threads)
    except ModelUnusable as error:
        _send(answers, Hello(DIMENSION, str(error)))
        return
    _send(answers, Hello(DIMENSION))
    while (body := _read(sys.stdin.buffer)) is not None:
        signal.alarm(seconds)
        answer = _answer(engine, msgspec.msgpack.decode(body, type=Request))
        signal.alarm(0)
        _send(answers, answer)


def _limit() -> None:
    import resource  # not on every platform that can import this module

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold the texts
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _answer(engine: Engine, request: Request) -> Vectors:
    try:
        vectors = engine.embed(request.texts, request.kind)
    except ValueError as error:
        return Vectors(request.number, b"", str(error))
    return Vectors(request.number, vectors.astype("<f4").tobytes())


def _read(pipe: BinaryIO) -> bytes | None:
    head = pipe.read(wire.LENGTH.size)
    if len(head) < wire.LENGTH.size:
        return None
    (length,) = wire.LENGTH.unpack(head)
    return pipe.read(length)


def _send(pipe: Any, message: Any) -> None:
    left = memoryview(wire.frame(message))
    while left:
        left = left[pipe.write(left) :]


if __name__ == "__main__":
    main()
