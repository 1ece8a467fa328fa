"""What a process holds at once: bodies that arrive, and requests that are served.

A body that is yet to come takes no place among the requests: a slow client keeps no other out. It
has a time (a number of seconds, and more as it arrives), and bodies are bounded by their number and
their bytes. Of each bound one caller has a share, so that none can take it all: a caller is a key,
or, where authentication is off, an address. What can't be served in time is refused unread.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPReceiveMessage, Receive, Scope, Send

from indexd.access import ANYONE, OPEN
from indexd.api import large_bodies
from indexd.api.auth import scope_of
from indexd.api.json_body import DECODED, Json, require_content_type
from indexd.api.operations import parameters
from indexd.api.parse import require_parameters
from indexd.api.refusal import refuse
from indexd.errors import BodyTimeout, IncompleteBody, Overloaded
from indexd.load.admission import Admission
from indexd.load.large_work import LARGE, LargeWork
from indexd.settings import Settings
from indexd.telemetry.metrics import Metrics

STAY = "indexd_stay"
"""In the state of a request's scope: its Stay."""


class Bound:
    """So much of something for all callers together, and a share of it for each."""

    def __init__(self, most: int, share: float, *, at_least: int = 1) -> None:
        self.taken = 0
        self._most = most
        self._share = min(most, max(at_least, int(most * share)))
        self._by: Counter[str] = Counter()

    def fits(self, caller: str, amount: int = 1) -> bool:
        return self.taken + amount <= self._most and self._by[caller] + amount <= self._share

    def take(self, caller: str, amount: int = 1) -> None:
        self.taken += amount
        self._by[caller] += amount

    def give_back(self, caller: str, amount: int = 1) -> None:
        self.taken -= amount
        self._by[caller] -= amount
        if not self._by[caller]:
            del self._by[caller]


class Bounds:
    """Of one process. A caller may always send one whole body."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        share = settings.caller_share
        self.requests = Bound(settings.max_requests, share)
        self.bodies = Bound(settings.max_bodies, share)
        self.bytes = Bound(
            max(settings.max_bodies_bytes, settings.max_body_bytes),
            share,
            at_least=settings.max_body_bytes,
        )
        self.seconds = settings.body_timeout_seconds
        self.rate = settings.min_body_bytes_per_second
        self._metrics = metrics

    def refused(self, why: str) -> Overloaded:
        self._metrics.rejected.labels(why).inc()
        return Overloaded()


class Stay:
    """One request from its head to its answer, and what it takes meanwhile."""

    def __init__(self, bounds: Bounds, receive: Receive) -> None:
        self.size = 0
        self._bounds = bounds
        self._receive = receive
        self._caller = ""
        self._arriving = self._served = self._streamed = False
        self._charged = 0
        self._waited = 0.0

    def enter(self, caller: str, *, has_body: bool, streamed: bool) -> None:
        """Called once it is known who calls. Raises Overloaded.

        A body that is streamed is dealt with as it arrives, so it stays among the bodies: what was
        begun is not refused at its end.
        """
        self._caller, self._streamed = caller, streamed
        if not has_body:
            self._serve()
            return
        if not self._bounds.bodies.fits(caller):
            raise self._bounds.refused("bodies")
        self._bounds.bodies.take(caller)
        self._arriving = True

    async def receive(self) -> HTTPReceiveMessage:
        """Raises BodyTimeout, IncompleteBody or Overloaded."""
        if not self._arriving:
            message: Any = await self._receive()
            return message  # type: ignore[no-any-return]
        message = await self._in_time()
        if message["type"] == "http.disconnect":
            raise IncompleteBody
        size = len(message["body"])
        if not self._bounds.bytes.fits(self._caller, size):
            raise self._bounds.refused("bytes")
        self._bounds.bytes.take(self._caller, size)
        self.size += size
        self._charged += size
        if not (message.get("more_body") or self._streamed):
            self._arrived()
            self._serve()
        return message  # type: ignore[no-any-return]

    def keep(self, size: int) -> None:
        """Of what came so far, only so many bytes are still in memory: the rest was dealt with."""
        freed = max(0, self._charged - size)
        self._bounds.bytes.give_back(self._caller, freed)
        self._charged -= freed

    def leave(self) -> None:
        self._arrived()
        self.keep(0)
        if self._served:
            self._served = False
            self._bounds.requests.give_back(self._caller)

    async def _in_time(self) -> Any:
        """Only waiting for the client counts, and not the time in which a bulk is written."""
        clock = asyncio.get_running_loop().time
        allowed, began = self._bounds.seconds + self.size / self._bounds.rate, clock()
        try:
            async with asyncio.timeout(allowed - self._waited):
                message = await self._receive()
        except TimeoutError as error:
            raise BodyTimeout from error
        self._waited += clock() - began
        return message

    def _arrived(self) -> None:
        if self._arriving:
            self._arriving = False
            self._bounds.bodies.give_back(self._caller)

    def _serve(self) -> None:
        if not self._bounds.requests.fits(self._caller):
            raise self._bounds.refused("requests")
        self._bounds.requests.take(self._caller)
        self._served = True


class InFlight(ASGIMiddleware):
    scopes = (ScopeType.HTTP,)

    def __init__(self, settings: Settings, admission: Admission, metrics: Metrics) -> None:
        self.bounds = Bounds(settings, metrics)
        self._most = settings.max_requests
        self._admission = admission

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        handler = scope["route_handler"]
        if scope_of(handler) == OPEN or handler.opt.get("urgent"):
            await next_app(scope, receive, send)
            return
        if self.bounds.requests.taken >= self._most:
            await refuse(self.bounds.refused("requests"), send)
            return
        if self._admission.refuse_early():
            await refuse(Overloaded(), send)
            return
        stay = Stay(self.bounds, receive)
        scope["state"][STAY] = stay
        try:
            await next_app(scope, stay.receive, send)
        finally:
            stay.leave()


def stay_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Stay | None:
    """None on routes that are answered under any load."""
    stay: Stay | None = connection.scope["state"].get(STAY)
    return stay


def arrival(settings: Settings, work: LargeWork) -> Callable[[Request[Any, Any, Any]], Any]:
    """The hook before a handler: the request takes its place, and a large body is decoded.

    A request with a query parameter that its route does not have is refused unread.
    """

    async def arrive(request: Request[Any, Any, Any]) -> None:
        if request.scope["query_string"] and "operation" in request.route_handler.opt:
            require_parameters(request.query_params, list(parameters(request.route_handler)))
        stay = stay_of(request)
        if stay is None:
            return
        dto = request.route_handler.resolve_data_dto()
        has_body = request.method not in ("GET", "HEAD")
        stay.enter(_caller(request), has_body=has_body, streamed=dto is None)
        if dto is None or not issubclass(dto, Json):
            return
        body = await request.body()
        if len(body) > LARGE:
            require_content_type(request.headers.get("content-type", ""), "application/json")
            decode = partial(large_bodies.decode, body, dto.decoder, settings)
            request.scope["state"][DECODED] = await work.run(len(body), decode)

    return arrive


def _caller(request: Request[Any, Any, Any]) -> str:
    access = request.scope.get("auth")
    if access is not None and access is not ANYONE:
        return f"key {access.name}"
    return f"address {request.client.host if request.client else ''}"
