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
from indexd.errors import RateLimited, ScopeMissing, Unauthorized
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


class _Admission(NamedTuple):
    """What the guard decides by. Without a key cache, authentication is off."""

    settings: Settings
    key_cache: KeyCache | None
    metrics: Metrics
    wrong_keys: RateLimit
    requests: RateLimit | None


def guard(settings: Settings, key_cache: KeyCache | None, metrics: Metrics) -> Guard:
    """Without a key cache, authentication is off and everyone is an admin."""
    admission = _Admission(
        settings,
        key_cache,
        metrics,
        wrong_keys=RateLimit(settings.auth_failures_per_minute),
        requests=RateLimit(settings.rate_limit) if settings.rate_limit else None,
    )

    async def check(
        connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        is_opened = getattr(settings, handler.opt.get("open_if", ""), False)
        needed = OPEN if is_opened else scope_of(handler)
        access = ANYONE
        if needed != OPEN and key_cache is not None:
            access = await _identified(connection, key_cache, admission)
            _require_scope(access, needed, metrics)
        connection.scope["auth"] = access
        if needed != OPEN and not handler.opt.get("urgent"):
            _count_request(access, admission)

    return check


async def _identified(
    connection: ASGIConnection[Any, Any, Any, Any], cache: KeyCache, admission: _Admission
) -> Access:
    """The rights of the key that the request sends. Raises Unauthorized or RateLimited."""
    secret = _secret_of(connection)
    if secret is None:
        raise _refused("missing", admission.metrics)
    address = connection.client.host if connection.client else ""
    found = cache.remembered(secret)
    if found is None:
        # Only keys that are not remembered: a flood of guesses keeps no valid key out.
        _refuse_after_wrong_keys(address, admission)
        found = await cache.asked(secret)
    key = found[0] if found else None
    # A key that is not there is compared as well, so that both take the same time.
    state = key.state(datetime.now(UTC)) if keys.matches(key, secret) and key else "unknown"
    if found is None or state != "valid":
        admission.wrong_keys.count(address)
        raise _refused(state, admission.metrics)
    structlog.contextvars.bind_contextvars(key=found[1].name)
    return found[1]


def _secret_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """The bearer token of the request, if it can be a key."""
    kind, _, secret = connection.headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    return secret if kind.lower() == "bearer" and 1 <= len(secret) <= keys.LONGEST else None


def _refuse_after_wrong_keys(address: str, admission: _Admission) -> None:
    """Raise RateLimited while too many wrong keys came from this address."""
    if left := admission.wrong_keys.seconds_until_allowed(address):
        _note_refusal("limited", admission.metrics)
        raise RateLimited("too many wrong keys; try again later", retry_after_seconds=left)


def _require_scope(access: Access, needed: str, metrics: Metrics) -> None:
    if not access.reaches(needed):
        _note_refusal("scope", metrics)
        raise ScopeMissing(f"the route needs scope {needed}, the key has {access.scope}")


def _count_request(access: Access, admission: _Admission) -> None:
    """Raise RateLimited where the key has used up its requests of a minute."""
    if admission.requests is None:
        return
    if left := admission.requests.try_acquire(access.name):
        admission.metrics.rejected.labels("rate_limit").inc()
        raise RateLimited(
            f"at most {admission.settings.rate_limit} requests per minute; try again later",
            retry_after_seconds=left,
        )


def _refused(why: str, metrics: Metrics) -> Unauthorized:
    """The same words whatever is wrong, so that no answer tells which keys exist or existed."""
    _note_refusal(why, metrics)
    return Unauthorized()


def _note_refusal(why: str, metrics: Metrics) -> None:
    """Count the refusal by its cause, and name the cause in the log line of the request."""
    metrics.auth_failures.labels(why).inc()
    structlog.contextvars.bind_contextvars(refused=why)


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
