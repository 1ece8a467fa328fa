"""By which names a server may be called: what a request says in `Host` and `Origin`.

A web page can have its own name resolved to 127.0.0.1 (DNS rebinding). For the browser the page and
a server on this machine are then one origin, and only the name in `Host` tells that they are not.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from indexd.errors import ConfigurationError

_AUTHORITY = re.compile(
    r"(?P<host>\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::(?P<port>[0-9]{0,5}))?"
)
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>.+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Authority(NamedTuple):
    """A host in its one spelling (small letters, no trailing dot), and a port if one is named."""

    host: str
    port: int | None


def authority(text: str) -> Authority | None:
    """HOST, HOST:PORT, [IPv6] or [IPv6]:PORT; None for anything else, user names included."""
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
    """localhost, 127.0.0.0/8 and [::1], and no name that is only resolved to one of them."""
    if host in ("localhost", "[::1]"):
        return True
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


class Doors(NamedTuple):
    """What a server may be called. `names` None: anything. `own_origin`: and by its own pages only.

    A name that was allowed without a port may be called with any.
    """

    names: frozenset[Authority] | None
    loopback: bool
    own_origin: bool

    def admits_host(self, sent: Iterable[str]) -> bool:
        """Whether these `Host` headers are one, well-formed, and a name of this server."""
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
        """Whether no page asks, or one that this server answered itself under this `Host`."""
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
    """The setting allowed_hosts, separated by commas. Raises ConfigurationError."""
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
    """`open_on_loopback`: without keys, on an address that this machine alone can reach."""
    given = allowed(names)
    if not open_on_loopback:
        return Doors(given, loopback=False, own_origin=False)
    own = authority(f"[{bound_to}]" if ":" in bound_to else bound_to)
    return Doors(
        (given or frozenset()) | ({Authority(own.host, None)} if own else set()),
        loopback=True,
        own_origin=True,
    )
