"""What can't be served in time is refused unread: too many requests held, or too many waiting."""

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from indexd.access import OPEN
from indexd.admission import Admission
from indexd.api.auth import scope_of
from indexd.api.refusal import refuse
from indexd.errors import Overloaded
from indexd.metrics import Metrics


class InFlight(ASGIMiddleware):
    scopes = (ScopeType.HTTP,)

    def __init__(self, most: int, admission: Admission, metrics: Metrics) -> None:
        self._most = most
        self._admission = admission
        self._metrics = metrics
        self._held = 0

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        handler = scope["route_handler"]
        if scope_of(handler) == OPEN or handler.opt.get("urgent"):
            await next_app(scope, receive, send)
            return
        if self._held >= self._most:
            self._metrics.rejected.labels("requests").inc()
            await refuse(Overloaded(), send)
            return
        if self._admission.refuse_early():
            await refuse(Overloaded(), send)
            return
        self._held += 1
        try:
            await next_app(scope, receive, send)
        finally:
            self._held -= 1
