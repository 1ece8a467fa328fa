"""One log line and one count per request, those that no route takes among them.

A line says method, path, status, duration, client, `request_id`, and what handlers bind: namespace,
doc_id, the key's name, and why a key was refused.
"""

import re
import time
import uuid
from collections.abc import Mapping
from http import HTTPMethod

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from indexd.telemetry.metrics import UNKNOWN_ROUTE, Metrics

log = structlog.get_logger()

EVENTS = {"/index/upsert": "received upsert"}
"""Log messages of single routes, by path; the message of all other routes is "request"."""

SHOWN_PATH = 200
"""Characters of a path in the log. Those of the routes are shorter; others may be anything."""

_METHODS = frozenset(HTTPMethod)
_KEY = re.compile(r"ixd_[\w-]*")
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")


class RequestLog:
    """Around the whole application; gives each request the id that its answer and line carry."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status, path = 500, scope["path"]
        request_id = _request_id(scope)

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        structlog.contextvars.clear_contextvars()
        try:
            await self._app(scope, receive, watched)
        finally:
            method = str(scope.get("method", ""))
            route = _route(scope)
            counted = method if method in _METHODS else "other"
            self._metrics.requests.labels(counted, route, str(status)).inc()
            log.info(
                EVENTS.get(path, "request"),
                method=method[:SHOWN_PATH],
                # Somebody may have put a key into it by mistake.
                path=_KEY.sub("ixd_", path[:SHOWN_PATH]),
                status=status,
                duration_ms=round((time.perf_counter() - started) * 1000, 2),
                client=scope["client"][0] if scope["client"] else None,
                request_id=request_id.decode(),
            )


def _request_id(scope: Scope) -> bytes:
    """The client's own, if it sent one proper one."""
    sent = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(sent) == 1 and _REQUEST_ID.fullmatch(sent[0]):
        return sent[0]
    return uuid.uuid4().hex.encode()


def _route(scope: Mapping[str, object]) -> str:
    """The path of the route as it was registered, once the routing has found one."""
    handler = scope.get("route_handler")
    return UNKNOWN_ROUTE if handler is None else min(handler.paths)  # type: ignore[attr-defined]
