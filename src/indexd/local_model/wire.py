"""What the server and the process of the model say to each other over two pipes.

Each message is four bytes, the length of the rest in network byte order, then MessagePack. The
process first sends Hello, then one Vectors for each Request, in their order.
"""

import struct
from typing import Any, Literal

import msgspec

LENGTH = struct.Struct("!I")

MOST_BYTES = 256 * 1024 * 1024
"""Bytes of a message at most. A longer one is not a message."""


class Hello(msgspec.Struct, frozen=True):
    """`problem` says why the model cannot be used on this machine; None if it can."""

    dimension: int
    problem: str | None = None


class Request(msgspec.Struct, frozen=True):
    number: int
    kind: Literal["query", "passage"]
    texts: list[str]


class Vectors(msgspec.Struct, frozen=True):
    """`vectors`: little-endian float32, one row per text. `refused`: why there are none."""

    number: int
    vectors: bytes
    refused: str | None = None


def frame(message: Any) -> bytes:
    """Raises UnicodeEncodeError if a text of the message holds a lone surrogate."""
    body = msgspec.msgpack.encode(message)
    if len(body) > MOST_BYTES:
        raise ValueError(f"a message of {len(body)} bytes, expected at most {MOST_BYTES}")
    return LENGTH.pack(len(body)) + body
