"""The leanest HTTP clients: prepared bytes over kept-alive sockets, so that the server is measured.

They share the machine's cores with what they measure: httpx takes longer than the service for a
small request.
"""

import asyncio
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

import httpx
import msgspec

SERVER_WAITS = 5.0
"""Seconds after which uvicorn closes a connection that nothing came over."""


def port_of(client: httpx.Client) -> int:
    """Where the server of this client listens."""
    return client.base_url.port or 80


def request(path: str, body: object) -> bytes:
    content = msgspec.json.encode(body)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def _status(head: bytes) -> int:
    return int(head.split(maxsplit=2)[1])


def _length(head: bytes) -> int:
    """Of the body that follows."""
    return int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])


class Wire:
    """One connection that is kept alive."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self._port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._came = b""
        self._last = time.monotonic()

    def ask(self, sent: bytes) -> bytes:
        """Send, and wait for the body of the answer."""
        if time.monotonic() - self._last > SERVER_WAITS - 2:
            self._connect()
        self.socket.sendall(sent)
        while (answer := self.take()) is None:
            pass
        self._last = time.monotonic()
        return answer

    def take(self) -> bytes | None:
        """What came, once it is a whole answer; the connection's end and a refusal raise."""
        more = self.socket.recv(2**18)
        if not more:
            raise ConnectionError("the server hung up")
        self._came += more
        head, found, body = self._came.partition(b"\r\n\r\n")
        if not found:
            return None
        if len(body) < _length(head):
            return None
        if _status(head) != 200:
            raise ConnectionError(f"{head.splitlines()[0]!r}: {body!r}")
        self._came = b""
        return body


class AsyncWires:
    """Connections that are kept alive, as many as there were requests at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, sent: bytes) -> int:
        """The status of the answer; 0 where the connection broke."""
        kept = bool(self._free)
        try:
            reader, writer = (
                self._free.pop()
                if self._free
                else await asyncio.open_connection("127.0.0.1", self._port)
            )
            writer.write(sent)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(head))
        except (OSError, asyncio.IncompleteReadError):
            # The server closes connections that were not used for a while.
            return await self.ask(sent) if kept else 0
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self._free.append((reader, writer))
        return _status(head)

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


def hammer(port: int, requests: Sequence[bytes], clients: int, count: int) -> float:
    """Seconds for `count` requests by `clients` at once, all sent from one thread."""
    wires = [Wire(port) for _ in range(clients)]
    left = islice(cycle(requests), count)
    with selectors.DefaultSelector() as ready:
        started = time.perf_counter()
        for wire in wires:
            ready.register(wire.socket, selectors.EVENT_READ, wire)
            wire.socket.sendall(next(left))
        answered = 0
        while answered < count:
            for key, _ in ready.select():
                if key.data.take() is not None:
                    answered += 1
                    if (sent := next(left, None)) is not None:
                        key.data.socket.sendall(sent)
        took = time.perf_counter() - started
    for wire in wires:
        wire.socket.close()
    return took


def in_threads(work: Callable[[Iterator[int]], None], clients: int, count: int) -> float:
    """Share the numbers 0..count among threads that each run `work`; seconds from first to last."""
    numbers, lock = iter(range(count)), threading.Lock()

    def drawn() -> Iterator[int]:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            yield number

    threads = [threading.Thread(target=work, args=(drawn(),)) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started
