"""One log line and one count per request: method, path, status, duration, namespace and doc_id."""

import time

import structlog
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from indexd.metrics import Metrics

log = structlog.get_logger()

EVENTS = {"/index/upsert": "received upsert"}
"""Log messages of single routes, by path; the message of all other routes is "request"."""


class RequestLog(ASGIMiddleware):
    scopes = (ScopeType.HTTP,)

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        started = time.perf_counter()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        structlog.contextvars.clear_contextvars()
        try:
            await next_app(scope, receive, watched)
        finally:
            method: str = scope["method"]  # type: ignore[typeddict-item]
            route = min(scope["route_handler"].paths)
            self._metrics.requests.labels(method, route, str(status)).inc()
            log.info(
                EVENTS.get(scope["path"], "request"),
                method=method,
                path=scope["path"],
                status=status,
                duration_ms=round((time.perf_counter() - started) * 1000, 2),
            )
