"""What a route says of itself, and from that the failures it can answer with.

A handler is declared by `json_post`, `ndjson_post` or `get`, with its scope and an `Operation`.
The OpenAPI document is made of the two, of the handler's signature and of its docstring.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

import litestar
import msgspec
from litestar import MediaType
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter

from indexd.access import OPEN
from indexd.api.json_body import Json
from indexd.errors import (
    BodyTimeout,
    BodyTooLarge,
    DatabaseFull,
    DatabasePrivilege,
    DatabaseReadOnly,
    DatabaseUnavailable,
    HostNotAllowed,
    IncompleteBody,
    IndexdError,
    InvalidField,
    InvalidJson,
    InvalidRequest,
    NamespaceForbidden,
    OriginNotAllowed,
    Overloaded,
    RateLimited,
    ScopeMissing,
    Unauthorized,
    UnknownField,
    UnsupportedContentType,
    WritesPaused,
)

Task = Literal["Store", "Find", "Fade", "Forget", "Look", "Operate"]
"""What a client wants to do; routes are grouped by it."""

TASKS: dict[Task, str] = {
    "Store": "Put documents in, one or many",
    "Find": "Search by meaning, by words or by both",
    "Fade": "See how documents fade and what retention would remove",
    "Forget": "Remove documents, and read the log of all that left",
    "Look": "Read one document, or what the memory holds",
    "Operate": "Probe and measure the service",
}

JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"


class Operation(msgspec.Struct, frozen=True):
    """`raises` are the failures of this route alone; those of all routes are in COMMON.

    `example` is a body, or the query parameters, as a client sends them. `text_answers` are
    further answers in plain text, by status.
    """

    id: str
    task: Task
    example: dict[str, Any] | None = None
    raises: tuple[type[IndexdError], ...] = ()
    text_answers: dict[int, str] = {}


class RouteFacts(NamedTuple):
    """What decides which of the common failures a route can answer with."""

    scope: str
    others: str
    body: str | None
    has_parameters: bool

    @property
    def is_guarded(self) -> bool:
        return self.scope != OPEN

    @property
    def takes_input(self) -> bool:
        return self.body == JSON or self.has_parameters


class Common(NamedTuple):
    """A failure, and the routes that can answer with it."""

    error: type[IndexdError]
    applies: Callable[[RouteFacts], bool]


COMMON: tuple[Common, ...] = (
    Common(InvalidJson, lambda route: route.body == JSON),
    Common(InvalidField, lambda route: route.takes_input),
    Common(UnknownField, lambda _: True),
    Common(InvalidRequest, lambda route: route.takes_input),
    Common(Unauthorized, lambda route: route.is_guarded),
    Common(ScopeMissing, lambda route: route.is_guarded and route.scope != "read"),
    Common(NamespaceForbidden, lambda route: route.others == "403" and route.body != NDJSON),
    Common(BodyTooLarge, lambda route: route.body == JSON),
    Common(UnsupportedContentType, lambda route: route.body is not None),
    Common(RateLimited, lambda route: route.is_guarded),
    Common(Overloaded, lambda route: route.is_guarded),
    Common(DatabaseUnavailable, lambda route: route.is_guarded),
    Common(DatabasePrivilege, lambda route: route.is_guarded),
    Common(DatabaseReadOnly, lambda route: route.scope in ("write", "admin")),
    Common(DatabaseFull, lambda route: route.scope in ("write", "admin")),
    Common(WritesPaused, lambda route: route.scope in ("write", "admin")),
    Common(HostNotAllowed, lambda _: True),
    Common(OriginNotAllowed, lambda _: True),
    Common(IncompleteBody, lambda route: route.body is not None),
    Common(BodyTimeout, lambda route: route.body is not None),
)
"""The failures that come from what routes have in common: names, keys, bodies, database, load.

This is the only place that says which routes have them: a new one is a line here. A line of a bulk
that a key may not write is an error of that line. An urgent route is answered under load, but a key
may have to be looked up in the database.
"""


def json_post(
    path: str, allowed: dict[str, Any], operation: Operation
) -> Callable[[Callable[..., Any]], HTTPRouteHandler]:
    """A POST whose JSON body is the handler's `data`; it answers 200."""

    def decorate(handler: Callable[..., Any]) -> HTTPRouteHandler:
        taken = get_type_hints(handler)["data"]
        declare = litestar.post(
            path,
            opt={**allowed, "operation": operation, "takes": taken},
            dto=Json.__class_getitem__(taken),
            return_dto=None,
            status_code=200,
            operation_id=operation.id,
        )
        return declare(handler)

    return decorate


def ndjson_post(
    path: str, allowed: dict[str, Any], operation: Operation
) -> Callable[[Callable[..., Any]], HTTPRouteHandler]:
    """A POST whose handler reads a body of any length line by line; it answers 200."""
    return litestar.post(
        path,
        opt={**allowed, "operation": operation, "takes": NDJSON},
        status_code=200,
        operation_id=operation.id,
        request_max_body_size=None,
    )


def get(
    path: str, allowed: dict[str, Any], operation: Operation, media_type: str = MediaType.JSON
) -> Callable[[Callable[..., Any]], HTTPRouteHandler]:
    """A GET with query parameters."""
    return litestar.get(
        path,
        opt={**allowed, "operation": operation},
        media_type=media_type,
        operation_id=operation.id,
    )


def parameters(handler: HTTPRouteHandler) -> dict[str, tuple[Any, QueryParameter]]:
    """Type and description of each query parameter, by name."""
    found = {}
    for name, hint in get_type_hints(handler.fn, include_extras=True).items():
        for described in getattr(hint, "__metadata__", ()):
            if isinstance(described, QueryParameter):
                found[name] = (get_args(hint)[0], described)
    return found


def facts(handler: HTTPRouteHandler) -> RouteFacts:
    taken = handler.opt.get("takes")
    return RouteFacts(
        scope=str(handler.opt["scope"]),
        others=str(handler.opt["others"]),
        body=taken if taken in (None, NDJSON) else JSON,
        has_parameters=bool(parameters(handler)),
    )


def failures(handler: HTTPRouteHandler) -> dict[int, list[type[IndexdError]]]:
    """Every failure that a route can answer with, by status."""
    route = facts(handler)
    operation: Operation = handler.opt["operation"]
    found: dict[int, list[type[IndexdError]]] = {}
    for error in (*(one.error for one in COMMON if one.applies(route)), *operation.raises):
        found.setdefault(error.status, []).append(error)
    return dict(sorted(found.items()))
