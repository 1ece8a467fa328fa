"""The most requests a process holds at once, each with its body: one more is refused unread."""

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from indexd.access import OPEN
from indexd.api.auth import scope_of
from indexd.api.problems import encoded
from indexd.errors import IndexdError, Overloaded
from indexd.metrics import Metrics


class InFlight(ASGIMiddleware):
    scopes = (ScopeType.HTTP,)

    def __init__(self, most: int, metrics: Metrics) -> None:
        self._most = most
        self._metrics = metrics
        self._held = 0

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        if scope_of(scope["route_handler"]) == OPEN:
            await next_app(scope, receive, send)
            return
        if self._held >= self._most:
            self._metrics.rejected.labels("requests").inc()
            await _refuse(Overloaded(), send)
            return
        self._held += 1
        try:
            await next_app(scope, receive, send)
        finally:
            self._held -= 1


async def _refuse(error: IndexdError, send: Send) -> None:
    headers = {"Content-Type": "application/json", **error.headers}
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": encoded(error), "more_body": False})
