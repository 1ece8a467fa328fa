"""Asking an embedding server over HTTP, and what its failures mean."""

from typing import Any, TypeVar

import httpx
import msgspec

from indexd import __version__, addresses
from indexd.addresses import address, can_be_a_key
from indexd.embedders.protocol import Failure
from indexd.errors import ConfigurationError

T = TypeVar("T")

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be others in a moment: an embedding can be asked for twice."""

REFUSED = frozenset({400, 413, 422})
"""The text is too long, or otherwise not one that this model takes."""

LONGEST_CONNECT_SECONDS = 5.0


def client(base_url: str, *, timeout: float, key: str | None = None) -> httpx.AsyncClient:
    """Raises ConfigurationError for what cannot be a URL or a key."""
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
    """The address without the password it may have."""
    return addresses.shown(client.base_url).rstrip("/")


async def ask(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> bytes:
    """The body of a good answer. Raises Failure for every other end there is.

    What the server says about its failure is left out: it may quote the text or the key.
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
    """Raises Failure where the answer is not of this form: HTML, null or NaN for a number."""
    try:
        return msgspec.json.decode(body, type=wanted)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure("answer", f"{shown(client)} answered what is not embeddings") from error
