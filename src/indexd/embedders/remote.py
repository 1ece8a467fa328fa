"""Requests to an embedding server over HTTP, and the translation of their failures."""

from typing import Any, TypeVar

import httpx
import msgspec

from indexd import __version__, addresses
from indexd.addresses import address, can_be_a_key
from indexd.embedders.protocol import Failure
from indexd.errors import ConfigurationError

T = TypeVar("T")

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses of temporary failures. The request is repeated: embedding changes nothing."""

REFUSED = frozenset({400, 413, 422})
"""HTTP statuses of a text that the model does not accept, for example because it is too long."""

LONGEST_CONNECT_SECONDS = 5.0
"""Seconds: the longest time for connecting, so that a server that is down is noticed early."""


def client(base_url: str, *, timeout: float, key: str | None = None) -> httpx.AsyncClient:
    """An HTTP client. Raises ConfigurationError if the URL or the key is not valid."""
    if key is not None and not can_be_a_key(key):
        raise ConfigurationError("embedder_api_key: holds characters that no key has")
    url = address(base_url, "embedder_base_url", "http://localhost:11434")
    headers = {"User-Agent": f"indexd/{__version__}", "Accept": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.AsyncClient(
        base_url=url,
        headers=headers,
        timeout=httpx.Timeout(timeout, connect=min(timeout, LONGEST_CONNECT_SECONDS)),
    )


def shown(client: httpx.AsyncClient) -> str:
    """The address of the server, without a password."""
    return addresses.shown(client.base_url).rstrip("/")


async def ask(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> bytes:
    """Send a request and return the body of a 200 answer. Raises Failure for everything else.

    The message does not quote the answer of the server, because that may quote the text or the key.
    """
    content = None if body is None else msgspec.json.encode(body)
    headers = {"Content-Type": "application/json"} if content is not None else {}
    try:
        response = await client.request(method, path, content=content, headers=headers)
    except httpx.TimeoutException as error:
        raise Failure("timeout", f"{shown(client)} did not answer in time", lasting=True) from error
    except httpx.TransportError as error:
        what = type(error).__name__
        raise Failure(
            "unreachable", f"{shown(client)} cannot be reached ({what})", again=True
        ) from error
    except httpx.HTTPError as error:
        raise Failure("answer", f"{shown(client)} answered what is not HTTP") from error
    status = response.status_code
    if status == httpx.codes.OK:
        return response.content
    if status in REFUSED:
        raise Failure("refused", f"{shown(client)} refused the text with status {status}")
    raise Failure(
        "status",
        f"{shown(client)} answered status {status}",
        again=status in AGAIN,
        lasting=status not in AGAIN,
        status=status,
    )


def decoded(body: bytes, wanted: type[T], client: httpx.AsyncClient) -> T:
    """Decode a body. Raises Failure if it is not of this type (HTML, or null for a number)."""
    try:
        return msgspec.json.decode(body, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure("answer", f"{shown(client)} answered what is not embeddings") from error
