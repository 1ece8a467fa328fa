"""Bodies that do not come: they keep nobody else out, and not their own server for ever."""

import asyncio
import json
import re
import secrets
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from indexd.api.in_flight import Bound, Bounds, Stay
from indexd.app import create_app
from indexd.errors import BodyTimeout, IncompleteBody, Overloaded
from indexd.settings import Settings
from indexd.telemetry.metrics import Metrics
from tests.conftest import Client, command, document
from tests.test_serve import external, serving

pytestmark = pytest.mark.slow

__all__ = ["external"]

SLOW = 120
"""Connections with an unfinished body, twice as many as the server takes bodies."""


def unfinished(port: int, key: str) -> socket.socket:
    wire = socket.create_connection(("127.0.0.1", port), timeout=30)
    wire.sendall(
        b"POST /index/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer " + key.encode() + b"\r\nContent-Length: 100\r\n\r\n{"
    )
    return wire


def test_one_key_cannot_shut_the_others_out_with_bodies_that_do_not_come(
    tmp_path: Path, external: str
) -> None:
    admin = secrets.token_hex(32)
    (tmp_path / "admin").write_text(admin)
    printed = command(external, "keys", "create", "limited", "--scope", "read", "--namespace", "a")
    [limited] = re.findall(r"ixd_\S+", printed)
    environ = {
        "INDEXD_AUTH": "keys",
        "INDEXD_ADMIN_KEY_FILE": str(tmp_path / "admin"),
        "INDEXD_MAX_BODIES": str(SLOW // 2),
        "INDEXD_MAX_REQUESTS": str(SLOW // 2),
        "INDEXD_BODY_TIMEOUT_SECONDS": "6",
    }
    with serving(tmp_path, "--database-url", external, **environ) as (client, _), ExitStack() as s:
        port = client.base_url.port or 0
        began = time.monotonic()
        wires = [s.enter_context(unfinished(port, limited)) for _ in range(SLOW)]
        headers = {"Authorization": f"Bearer {admin}"}
        for _ in range(3):
            answer = client.post("/index/upsert", json=document("x", [1, 0]), headers=headers)
            assert answer.status_code == 200, answer.text
        assert time.monotonic() - began < 6, "the machine is too slow for this test"
        answers = [wire.makefile("rb").read() for wire in wires[: SLOW // 4]]
        assert {answer.split(b" ", 2)[1] for answer in answers} == {b"408"}
        assert all(b'"code":"body_timeout"' in answer for answer in answers)
        refused = wires[-1].makefile("rb").readline()
        assert refused.split()[1] == b"503"
        own = {"Authorization": f"Bearer {limited}"}
        sent = {"embedding": [1, 0], "namespace": "a"}
        assert client.post("/index/search", json=sent, headers=own).status_code == 200
        counted = client.get("/metrics", headers=headers).text
        assert 'index_requests_rejected_total{reason="bodies"}' in counted


class Wire:
    """What a client sends: pieces, each after some seconds."""

    def __init__(self, *pieces: tuple[float, bytes | None]) -> None:
        self._left = list(pieces)

    async def __call__(self) -> Any:
        if not self._left:
            await asyncio.sleep(60)
        seconds, piece = self._left.pop(0)
        await asyncio.sleep(seconds)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}


def bounds(**changes: Any) -> Bounds:
    return Bounds(msgspec.structs.replace(Settings(), **changes), Metrics())


async def read(stay: Stay) -> bytes:
    body = b""
    message: Any
    while True:
        message = await stay.receive()
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


async def test_a_body_has_more_time_the_more_of_it_came() -> None:
    bound = bounds(body_timeout_seconds=0.3, min_body_bytes_per_second=100)
    steady = Stay(bound, Wire(*[(0.1, b"x" * 100)] * 8, (0.0, b"")))
    steady.enter("a", has_body=True, streamed=False)
    assert await read(steady) == b"x" * 800
    slow = Stay(bound, Wire(*[(0.1, b"x")] * 8, (0.0, b"")))
    slow.enter("a", has_body=True, streamed=False)
    with pytest.raises(BodyTimeout):
        await read(slow)


async def test_the_time_in_which_the_server_works_is_not_the_clients() -> None:
    stay = Stay(bounds(body_timeout_seconds=0.2), Wire(*[(0.0, b"x")] * 5, (0.0, b"")))
    stay.enter("a", has_body=True, streamed=True)
    for _ in range(5):
        await stay.receive()
        await asyncio.sleep(0.1)
    await stay.receive()


async def test_a_body_takes_no_place_among_the_requests_until_it_is_complete() -> None:
    bound = bounds(max_requests=2)
    stay = Stay(bound, Wire((0, b"x"), (0, b"")))
    stay.enter("a", has_body=True, streamed=False)
    await stay.receive()
    assert (bound.bodies.taken, bound.requests.taken, bound.bytes.taken) == (1, 0, 1)
    await stay.receive()
    assert (bound.bodies.taken, bound.requests.taken, bound.bytes.taken) == (0, 1, 1)
    second = Stay(bound, Wire((0, b"")))
    second.enter("a", has_body=True, streamed=False)
    with pytest.raises(Overloaded):
        await second.receive()
    for left in (stay, second):
        left.leave()
    assert (bound.bodies.taken, bound.requests.taken, bound.bytes.taken) == (0, 0, 0)


async def test_bodies_are_bounded_by_their_bytes_and_a_bulk_gives_back_what_it_wrote() -> None:
    bound = bounds(max_body_bytes=100, max_bodies_bytes=300, caller_share=0.5)
    first = Stay(bound, Wire(*[(0, b"x" * 50)] * 9))
    first.enter("a", has_body=True, streamed=True)
    for _ in range(3):
        await first.receive()
    with pytest.raises(Overloaded):
        await first.receive()
    first.keep(10)
    await first.receive()
    assert bound.bytes.taken == 60
    other = Stay(bound, Wire((0, b"x" * 100), (0, b"")))
    other.enter("b", has_body=True, streamed=False)
    assert len(await read(other)) == 100


async def test_a_client_that_leaves_is_no_failure_of_the_server() -> None:
    stay = Stay(bounds(), Wire((0, b"x"), (0, None)))
    stay.enter("a", has_body=True, streamed=False)
    await stay.receive()
    with pytest.raises(IncompleteBody):
        await stay.receive()


def test_a_caller_has_a_share_and_at_least_one_place() -> None:
    bound = Bound(10, 0.5)
    for _ in range(5):
        assert bound.fits("a")
        bound.take("a")
    assert not bound.fits("a")
    assert bound.fits("b")
    bound.give_back("a")
    assert bound.fits("a")
    assert Bound(1, 0.5).fits("a")


async def test_without_keys_a_caller_is_an_address(settings: Settings) -> None:
    shared = {"max_requests": 2, "max_bodies": 2, "caller_share": 0.5}
    app = create_app(msgspec.structs.replace(settings, **shared))
    async with Client(app) as client:
        body = json.dumps({"embedding": [1, 0]}).encode()

        async def held() -> Any:
            yield body[:5]
            await asyncio.sleep(1)
            yield body[5:]

        headers = {"Content-Type": "application/json"}
        slow = asyncio.create_task(client.post("/index/search", content=held(), headers=headers))
        await asyncio.sleep(0.3)
        same = await client.post("/index/search", content=body, headers=headers)
        assert (same.status_code, same.json()["code"]) == (503, "overloaded")
        transport = client._transport
        transport._asgi.client = ("192.0.2.7", 1)  # type: ignore[attr-defined]
        other = await client.post("/index/search", content=body, headers=headers)
        assert other.status_code == 200
        assert (await slow).status_code == 200


def test_a_client_that_leaves_in_its_body_is_not_counted_as_a_500(
    tmp_path: Path, external: str
) -> None:
    with serving(tmp_path, "--database-url", external) as (client, _):
        with unfinished(client.base_url.port or 0, "none"):
            time.sleep(0.3)

        def lines() -> list[Any]:
            text = (tmp_path / "out").read_text().splitlines()
            logged = [json.loads(line) for line in text if line.startswith("{")]
            return [line for line in logged if line.get("path") == "/index/search"]

        for _ in range(100):
            if lines():
                break
            time.sleep(0.05)
        [line] = lines()
        assert line["status"] == 400
