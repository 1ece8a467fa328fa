"""Checks the headers `Host` and `Origin`: the names by which a server may be called.

A web page can let its own name resolve to 127.0.0.1 (DNS rebinding). For the browser, the page and
a server on this machine then have the same origin, and only the name in `Host` shows the attack.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from indexd.errors import ConfigurationError

_AUTHORITY = re.compile(
    r"(?P<host>\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::(?P<port>[0-9]{0,5}))?"
)
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>.+)")
_DEFAULT_PORTS: Mapping[str, int] = MappingProxyType({"http": 80, "https": 443})


class Authority(NamedTuple):
    """A host in lower case without a trailing dot, and its port, None if it names none."""

    host: str
    port: int | None


def authority(text: str) -> Authority | None:
    """Parse HOST, HOST:PORT, [IPv6] or [IPv6]:PORT; None for anything else, also `user@HOST`."""
    found = _AUTHORITY.fullmatch(text.lower())
    if found is None:
        return None
    host, port = found["host"], int(found["port"]) if found["port"] else None
    if port is not None and port > 65535:
        return None
    if host.startswith("["):
        try:
            return Authority(f"[{ipaddress.IPv6Address(host[1:-1])}]", port)
        except ValueError:
            return None
    host = host.removesuffix(".")
    if not host or host.startswith(".") or ".." in host or host.endswith("."):
        return None
    return Authority(host, port)


def is_loopback(host: str) -> bool:
    """Whether a host is localhost, in 127.0.0.0/8, or [::1]. Names are not resolved."""
    if host in ("localhost", "[::1]"):
        return True
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


class Doors(NamedTuple):
    """The names by which a server may be called, and the pages that may call it.

    `names` None: any name. A name without a port is allowed with every port. `loopback`: loopback
    names are allowed too. `own_origin`: only pages that this server answered itself may call it.
    """

    names: frozenset[Authority] | None
    loopback: bool
    own_origin: bool

    def admits_host(self, sent: Iterable[str]) -> bool:
        """Whether there is exactly one `Host` header, which is valid and names this server."""
        if self.names is None:
            return True
        hosts = list(sent)
        found = authority(hosts[0]) if len(hosts) == 1 else None
        if found is None:
            return False
        if self.loopback and is_loopback(found.host):
            return True
        return found in self.names or Authority(found.host, None) in self.names

    def admits_origin(self, sent: Iterable[str], host: str) -> bool:
        """Whether the request comes from no web page, or from a page of this `Host`."""
        origins = list(sent)
        if not self.own_origin or not origins:
            return True
        found = _ORIGIN.fullmatch(origins[0].lower()) if len(origins) == 1 else None
        if found is None:
            return False
        default = _DEFAULT_PORTS[found["scheme"]]
        page, server = authority(found["authority"]), authority(host)
        return (
            page is not None
            and server is not None
            and page.host == server.host
            and (page.port or default) == (server.port or default)
        )


def allowed(names: str | None) -> frozenset[Authority] | None:
    """Parse the setting allowed_hosts, names separated by commas. Raises ConfigurationError."""
    if names is None:
        return None
    found = set()
    for name in names.split(","):
        one = authority(name.strip())
        if one is None:
            raise ConfigurationError(
                "allowed_hosts: expected names such as memory.example or [::1]:8080, "
                f"separated by commas, got {name.strip()!r}"
            )
        found.add(one)
    return frozenset(found)


def doors(bound_to: str, names: str | None, *, open_on_loopback: bool) -> Doors:
    """The names of a server that listens on `bound_to`.

    `open_on_loopback`: it asks for no keys, and only this machine can reach its address.
    """
    given = allowed(names)
    if not open_on_loopback:
        return Doors(given, loopback=False, own_origin=False)
    own = authority(f"[{bound_to}]" if ":" in bound_to else bound_to)
    return Doors(
        (given or frozenset()) | ({Authority(own.host, None)} if own else set()),
        loopback=True,
        own_origin=True,
    )
