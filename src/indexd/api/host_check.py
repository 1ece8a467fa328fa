"""Refuses requests that call the server by a name that is not its own, before any route."""

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from indexd.api.refusal import refuse
from indexd.errors import HostNotAllowed, OriginNotAllowed
from indexd.hosts import Doors


class HostCheck:
    """Around the whole application, so that unknown routes and the documentation are behind it."""

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self._app = app
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
            # A target with a scheme names a host of its own, which goes before the header.
            if not (self._doors.admits_host(hosts) and scope["path"].startswith(("/", "*"))):
                await refuse(HostNotAllowed(), send)
                return
            if not self._doors.admits_origin(origins, hosts[0] if hosts else ""):
                await refuse(OriginNotAllowed(), send)
                return
        await self._app(scope, receive, send)


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for header, value in scope["headers"] if header == name]
