"""Who may call a server without keys: this machine by its own names, and none of its web pages."""

import json
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from indexd import hosts
from indexd.app import create_app
from indexd.errors import ConfigurationError
from indexd.settings import Settings, load
from tests.conftest import Client, Sql, document
from tests.test_serve import external, serving

__all__ = ["external"]

OWN = hosts.doors("127.0.0.5", "memory.example, Proxy.example:8443", open_on_loopback=True)
WIPE = {
    "filter": {"namespace": "notes", "allow_namespace_wipe": True},
    "reason": "x",
    "confirm": True,
}


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:1", "localhost.", "localhost.:8080", "localhost:"),
        *("127.0.0.1", "127.0.0.1:8080", "127.255.0.9:80", "127.0.0.5:8080"),
        *("[::1]", "[::1]:8080", "[0:0:0:0:0:0:0:1]:80", "[0000::0001]"),
        *("memory.example", "Memory.Example:99", "memory.example.", "proxy.example:8443"),
    ],
)
def test_a_name_of_the_servers_own_is_admitted(host: str) -> None:
    assert OWN.admits_host([host])


@pytest.mark.parametrize(
    "sent",
    [
        *([], [""], ["localhost", "localhost"], ["localhost", "evil.example"], ["localhost, a"]),
        *(["evil.example"], ["evil.example:8080"], ["localhost.evil.example"], ["localhost.."]),
        *(["127.0.0.1.nip.io"], ["127.0.0.1.evil.example"], ["xlocalhost"], ["local host"]),
        *(["127.1"], ["2130706433"], ["0x7f.0.0.1"], ["127.0.0.01"], ["0.0.0.0:1"], ["128.0.0.1"]),
        *(["[::2]"], ["[::]"], ["[::1%lo]"], ["[::1"], ["::1"], ["[localhost]"], ["[127.0.0.1]"]),
        *(["user@localhost"], ["localhost@evil.example"], ["localhost/"], ["localhost#a"]),
        *(["localhost:80:80"], ["localhost:x"], ["localhost:99999"], ["localhost:-1"]),
        *(["http://localhost"], ["localhost\n"], [" localhost"], ["localhost\x00"], ["lócalhost"]),
        *(["proxy.example"], ["proxy.example:80"], ["a.memory.example"], ["."]),
    ],
)
def test_any_other_name_is_refused(sent: list[str]) -> None:
    assert not OWN.admits_host(sent)


@pytest.mark.parametrize(
    ("origin", "host", "admitted"),
    [
        ("http://localhost:8080", "localhost:8080", True),
        ("HTTP://LOCALHOST:8080", "localhost:8080", True),
        ("http://[::1]:8080", "[0:0::1]:8080", True),
        ("http://localhost", "localhost:80", True),
        ("https://memory.example", "memory.example", True),
        ("http://localhost:3000", "localhost:8080", False),
        ("http://127.0.0.1:8080", "localhost:8080", False),
        ("https://localhost", "localhost:80", False),
        ("http://evil.example:8080", "localhost:8080", False),
        ("http://localhost:8080.evil.example", "localhost:8080", False),
        ("http://localhost:8080/", "localhost:8080", False),
        ("http://a@localhost:8080", "localhost:8080", False),
        ("null", "localhost:8080", False),
        ("", "localhost:8080", False),
        ("file://", "localhost:8080", False),
        ("chrome-extension://localhost:8080", "localhost:8080", False),
        ("localhost:8080", "localhost:8080", False),
    ],
)
def test_only_a_page_of_this_very_server_may_ask(origin: str, host: str, admitted: bool) -> None:
    assert OWN.admits_origin([origin], host) is admitted
    assert not OWN.admits_origin([origin, origin], host)
    assert OWN.admits_origin([], host)


async def test_a_web_page_cannot_wipe_a_server_without_keys(own_client: Client) -> None:
    await own_client.post("/index/upsert", json=document("a", [1, 0]))
    for headers, status, code in (
        ({"Host": "evil.example:8080", "Origin": "http://evil.example:8080"}, 421, "host"),
        ({"Host": "evil.example:8080"}, 421, "host"),
        ({"Origin": "http://evil.example"}, 403, "origin"),
        ({"Origin": "null"}, 403, "origin"),
    ):
        answer = await own_client.post("/index/forget", json=WIPE, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, f"{code}_not_allowed")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"]
    assert (await own_client.get("/index/stats")).json()["total_documents"] == 1
    own = {"Origin": "http://localhost:8080"}
    answer = await own_client.post("/index/forget", json=WIPE, headers=own)
    assert answer.json()["forgotten_count"] == 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/schema", "/none", "/"])
async def test_the_rule_holds_on_every_route_and_where_there_is_none(
    client: Client, path: str
) -> None:
    answer = await client.get(path, headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (421, "host_not_allowed")
    answer = await client.get(path, headers={"Origin": "http://evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")


async def test_no_answer_lets_pages_of_others_read_it(client: Client) -> None:
    for method, origin in (
        ("OPTIONS", "http://evil.example"),
        ("OPTIONS", "http://localhost:8080"),
        ("GET", "http://localhost:8080"),
    ):
        answer = await client.request(
            method,
            "/index/stats",
            headers={"Origin": origin, "Access-Control-Request-Method": "POST"},
        )
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("changes", "host", "status"),
    [
        ({"auth": "keys"}, "anything.example", 200),
        ({"auth": "keys", "allowed_hosts": "memory.example"}, "memory.example:80", 200),
        ({"auth": "keys", "allowed_hosts": "memory.example"}, "localhost", 421),
        ({"auth": "off", "bind_addr": "192.0.2.1:80"}, "anything.example", 200),
        ({"auth": "off", "bind_addr": "192.0.2.1:80", "allowed_hosts": "a.b"}, "anything", 421),
        ({"bind_addr": "[::1]:80"}, "[::1]:9", 200),
        ({"bind_addr": "[::1]:80"}, "memory.example", 421),
        ({"allowed_hosts": "memory.example"}, "memory.example", 200),
    ],
)
async def test_elsewhere_only_the_names_of_the_setting_count(
    settings: Settings, changes: dict[str, Any], host: str, status: int
) -> None:
    async with Client(create_app(msgspec.structs.replace(settings, **changes))) as client:
        # With keys, or on other addresses, pages of others are no concern of this rule.
        elsewhere = "bind_addr" in changes or "auth" in changes
        origin = (
            {"Origin": "http://evil.example"} if elsewhere and "::1" not in str(changes) else {}
        )
        answer = await client.get("/healthz", headers={"Host": host, **origin})
        assert answer.status_code == status


@pytest.mark.parametrize("names", ["a b", "http://a", "a,,b", "a:x", ",", "*"])
def test_a_name_that_is_none_stops_the_start(names: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed_hosts: expected names such as"):
        load({"INDEXD_ALLOWED_HOSTS": names})


def test_requests_as_they_stand_on_the_wire(tmp_path: Path, external: str) -> None:
    with serving(tmp_path, "--database-url", external) as (client, _):
        port = client.base_url.port

        def status(head: str) -> int:
            with socket.create_connection(("127.0.0.1", port or 0), timeout=10) as wire:
                wire.sendall(head.replace("\n", "\r\n").encode() + b"Connection: close\r\n\r\n")
                return int(wire.makefile("rb").readline().split()[1])

        assert status(f"GET /healthz HTTP/1.1\nHost: LocalHost:{port}\n") == 200
        assert status("GET /healthz HTTP/1.1\nHost: evil.example\n") == 421
        assert status("GET /healthz HTTP/1.1\nHost: localhost\nHost: evil.example\n") in (400, 421)
        assert status("GET /healthz HTTP/1.1\n") in (400, 421)
        assert status("GET /healthz HTTP/1.0\n") in (400, 421)
        assert status("GET http://evil.example/healthz HTTP/1.1\nHost: evil.example\n") == 421
        assert status(f"GET /healthz HTTP/1.1\nHost: localhost:{port}\nOrigin: null\n") == 403
    lines = [json.loads(x) for x in (tmp_path / "out").read_text().splitlines() if x[0] == "{"]
    assert {421, 403} <= {line.get("status") for line in lines}


async def test_an_answer_carries_the_requests_id(client: Client, sql: Sql) -> None:
    for path in ("/healthz", "/none", "/index/document"):
        answer = await client.get(path, headers={"X-Request-ID": "abc-1"})
        assert answer.headers.get_list("x-request-id") == ["abc-1"]
        for improper in ("a b", "x" * 129, "ä", ""):
            headers = {"X-Request-ID": improper.encode("latin-1")}
            answer = await client.get(path, headers=headers)  # type: ignore[arg-type]
            [made] = answer.headers.get_list("x-request-id")
            assert len(made) == 32
