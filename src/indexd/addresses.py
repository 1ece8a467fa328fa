"""URLs and keys of the HTTP servers that this program calls."""

import httpx

from indexd.errors import ConfigurationError


def address(text: str, where: str, such_as: str) -> httpx.URL:
    """Parse an HTTP URL.

    Raises ConfigurationError, which names the setting (`where`) and an example (`such_as`).
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{where}: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(f"{where}: expected one such as {such_as}")
    return url


def shown(url: httpx.URL) -> str:
    """The URL as a text for people, without user name and password."""
    return str(url.copy_with(userinfo=b""))


def can_be_a_key(key: str) -> bool:
    """Whether a text can be sent in an HTTP header."""
    return key.isascii() and key.isprintable()
