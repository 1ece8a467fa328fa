"""Addresses of servers that are spoken to over HTTP."""

import httpx

from indexd.errors import ConfigurationError


def address(text: str, where: str, such_as: str) -> httpx.URL:
    """Raises ConfigurationError, which names `where` it stands and an example."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{where}: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(f"{where}: expected one such as {such_as}")
    return url


def shown(url: httpx.URL) -> str:
    """For people: without the password it may have."""
    return str(url.copy_with(userinfo=b""))


def can_be_a_key(key: str) -> bool:
    """Whether it can stand in a header."""
    return key.isascii() and key.isprintable()
