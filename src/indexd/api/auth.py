"""Who calls, and whether this route is for them: one guard before every route.

A route says its scope on its handler, and what it does with other namespaces than those of a key:
`opt=scope("read", others="empty")`. One that says no scope is for admins.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog
from litestar import Litestar, Request
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute
from litestar.types import Guard

from indexd.access import ANYONE, OPEN, SCOPES, Access, Others
from indexd.background.key_cache import KeyCache
from indexd.errors import IndexdError, RateLimited, ScopeMissing, Unauthorized
from indexd.load.rate_limit import RateLimit
from indexd.settings import Settings
from indexd.store import keys
from indexd.telemetry.metrics import Metrics


def scope(
    needed: str, *, others: Others, open_if: str = "", urgent: bool = False
) -> dict[str, Any]:
    """The `opt` of a handler; `open_if` is a setting that opens the route to everyone.

    An urgent one is answered under any load.
    """
    return {"scope": needed, "others": others, "open_if": open_if, "urgent": urgent}


def scope_of(handler: BaseRouteHandler) -> str:
    return str(handler.opt.get("scope", "admin"))


def access_of(request: Request[Any, Any, Any]) -> Access:
    """The dependency `access` of handlers."""
    access: Access = request.auth
    return access


def guard(settings: Settings, key_cache: KeyCache | None, metrics: Metrics) -> Guard:
    """Without a key cache, authentication is off and everyone is an admin."""
    failures = RateLimit(settings.auth_failures_per_minute)
    rate = RateLimit(settings.rate_limit) if settings.rate_limit else None

    async def identified(connection: ASGIConnection[Any, Any, Any, Any], cache: KeyCache) -> Access:
        kind, _, secret = connection.headers.get("authorization", "").partition(" ")
        secret = secret.strip()
        if kind.lower() != "bearer" or not 1 <= len(secret) <= keys.LONGEST:
            raise refused("missing")
        address = connection.client.host if connection.client else ""
        found = cache.remembered(secret)
        if found is None:
            # Only those that memory has not: a flood of guesses keeps no valid key out.
            if left := failures.seconds_until_allowed(address):
                metrics.auth_failures.labels("limited").inc()
                structlog.contextvars.bind_contextvars(refused="limited")
                raise RateLimited("too many wrong keys; try again later", retry_after_seconds=left)
            found = await cache.asked(secret)
        key = found[0] if found else None
        if found is None or not keys.matches(key, secret):
            failures.count(address)
            raise refused("unknown")
        if (state := found[0].state(datetime.now(UTC))) != "valid":
            failures.count(address)
            raise refused(state)
        return found[1]

    def refused(why: str) -> IndexdError:
        """The same words for all, so that nobody learns which keys there are or were."""
        metrics.auth_failures.labels(why).inc()
        structlog.contextvars.bind_contextvars(refused=why)
        return Unauthorized()

    async def check(
        connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        needed = scope_of(handler)
        if getattr(settings, handler.opt.get("open_if", ""), False):
            needed = OPEN
        if needed == OPEN or key_cache is None:
            access = ANYONE
        else:
            access = await identified(connection, key_cache)
            structlog.contextvars.bind_contextvars(key=access.name)
            if not access.reaches(needed):
                metrics.auth_failures.labels("scope").inc()
                structlog.contextvars.bind_contextvars(refused="scope")
                raise ScopeMissing(f"the route needs scope {needed}, the key has {access.scope}")
        connection.scope["auth"] = access
        if needed == OPEN or handler.opt.get("urgent"):
            return
        if rate is not None and (left := rate.try_acquire(access.name)):
            metrics.rejected.labels("rate_limit").inc()
            raise RateLimited(
                f"at most {settings.rate_limit} requests per minute; try again later",
                retry_after_seconds=left,
            )

    return check


class Route(NamedTuple):
    method: str
    path: str
    scope: str
    others: str


def routes(app: Litestar) -> list[Route]:
    """Every route as docs/operations.md shows them; `none` where it does not say something."""
    return sorted(
        Route(
            method,
            route.path,
            str(handler.opt.get("scope", "none")),
            str(handler.opt.get("others", "none")),
        )
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
        if method not in ("OPTIONS", "HEAD")
    )


def table(shown: Iterable[Route]) -> list[str]:
    """Markdown: who may call what."""
    return [
        "| route | open | read | write | admin | other namespaces |",
        "|---|---|---|---|---|---|",
        *(
            f"| `{route.method} {route.path}` | "
            + " | ".join(
                "yes" if (OPEN, *SCOPES).index(route.scope) <= column else ""
                for column in range(1 + len(SCOPES))
            )
            + f" | {route.others} |"
            for route in shown
        ),
    ]
