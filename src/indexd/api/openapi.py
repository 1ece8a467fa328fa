"""The OpenAPI document, made from the handlers: their types, docstrings, scopes and operations."""

import inspect
import types
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlencode

import msgspec
from litestar import Litestar, Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from indexd import __version__
from indexd.access import OPEN
from indexd.api import schema_page
from indexd.api.auth import scope
from indexd.api.operations import JSON, NDJSON, TASKS, TEXT, Operation, facts, failures, parameters
from indexd.api.structs import Error, UpsertIn
from indexd.errors import IndexdError

Object = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"

SECURITY = "key"
"""Name of the one security scheme."""

EXAMPLE_SERVER = "http://localhost:8080"

_DESCRIPTION = """\
A long-term memory for agents and tools that forgets on purpose.

Bodies are JSON in UTF-8, times are RFC 3339 in UTC, durations are seconds. A success is status
200. Every answer of status 400 and above has the body `Error`, except that of /readyz, which is
text. A refused request changes nothing. Every answer carries `X-Request-ID`, which the log has too.

Where authentication is on, send `Authorization: Bearer <key>`. A key has a scope: `read` finds
and looks; `write` also stores, deletes and embeds; `admin` does everything. Each route names the
scope that it needs. A key may be limited to namespaces: others do not exist for it.

An unknown route is 404 `unknown_route`, and a method that a route does not have is 405
`method_not_allowed`."""

_OTHERS = {
    "empty": "For a key limited to namespaces, all others are empty.",
    "403": "A key limited to namespaces is refused in all others.",
    "left out": "For a key limited to namespaces, all others are left out.",
    "-": "",
}

_HEADERS: dict[str, Object] = {
    "X-Request-ID": {
        "description": "Id of the request in the log; the client's own if it sent a proper one",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds after which the same request may succeed",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "WWW-Authenticate": {
        "description": "How to authenticate: `Bearer`",
        "required": True,
        "schema": {"type": "string"},
    },
}

_HEADERS_OF: dict[int, tuple[str, ...]] = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
"""The headers that answers of a status carry beside those of _ALWAYS."""

_ALWAYS = ("X-Request-ID",)
"""The headers of every answer."""

_STATUSES = {
    200: "The request was served",
    400: "The request is not valid",
    401: "The key is missing or wrong",
    403: "The key does not allow this",
    404: "There is no such thing",
    409: "The request conflicts with what is stored",
    413: "The body is too large",
    415: "The Content-Type is not the one expected",
    422: "The namespace is not one of those that the route takes",
    429: "The requests come too fast",
    503: "Something the request needs is not available for the moment",
}


class Documentation(msgspec.Struct, frozen=True):
    """The document in the two forms that are served."""

    page: bytes
    json: bytes


@get("/schema", opt=scope(OPEN, others="-"))
async def page(request: Request[Any, Any, State]) -> Response[bytes]:
    """The document for people."""
    return Response(
        _documentation(request.app).page,
        media_type="text/html; charset=utf-8",
        headers={"Content-Security-Policy": schema_page.POLICY},
    )


@get("/schema/openapi.json", opt=scope(OPEN, others="-"))
async def document_as_json(request: Request[Any, Any, State]) -> Response[bytes]:
    """The document for programs."""
    return Response(_documentation(request.app).json, media_type=JSON)


def _documentation(app: Litestar) -> Documentation:
    """Made at the first request, since it takes tens of milliseconds; the application keeps it."""
    made: Documentation | None = app.state.get("documentation")
    if made is None:
        found = document(app)
        made = Documentation(schema_page.rendered(found), msgspec.json.encode(found))
        app.state.documentation = made
    return made


def document(app: Litestar) -> Object:
    """The document of every route that has an `Operation`, in the order of the tasks."""
    handlers = sorted(_described(app), key=_order)
    paths: dict[str, Object] = {}
    for handler in handlers:
        path, method = _place(handler)
        paths.setdefault(path, {})[method.lower()] = _operation(handler)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "indexd",
            "version": __version__,
            "description": _DESCRIPTION,
        },
        "tags": [{"name": task, "description": text} for task, text in TASKS.items()],
        "paths": paths,
        "components": {
            "schemas": _schemas(handlers),
            "headers": _HEADERS,
            "securitySchemes": {
                SECURITY: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key made by `indexd keys create`. Its scope is `read`, "
                    "`write` or `admin`; each includes those before it. Needed where "
                    "authentication is on.",
                }
            },
        },
    }


def _described(app: Litestar) -> Iterator[HTTPRouteHandler]:
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            yield from (one for one in route.route_handlers if "operation" in one.opt)


def _order(handler: HTTPRouteHandler) -> int:
    """By task; within one, as the application lists its routes."""
    return list(TASKS).index(_told(handler).task)


def _place(handler: HTTPRouteHandler) -> tuple[str, str]:
    [path], [method] = handler.paths, handler.http_methods - {"OPTIONS", "HEAD"}
    return path, method


def _operation(handler: HTTPRouteHandler) -> Object:
    route, operation = facts(handler), _told(handler)
    summary, _, more = (inspect.getdoc(handler.fn) or "").partition("\n\n")
    rule = "Open to everyone." if route.scope == OPEN else f"Needs scope `{route.scope}`."
    made: Object = {
        "operationId": operation.id,
        "tags": [operation.task],
        "summary": " ".join(summary.split()),
        "description": "\n\n".join(
            text for text in (more, f"{rule} {_OTHERS[route.others]}".strip()) if text
        ),
        "security": _security(handler),
        "parameters": _parameters(handler),
    }
    if route.body is not None:
        made["requestBody"] = _request_body(handler)
    made["responses"] = _responses(handler)
    made["x-codeSamples"] = [{"lang": "Shell", "label": "curl", "source": _curl(handler)}]
    return {key: value for key, value in made.items() if value or key == "security"}


def _told(handler: HTTPRouteHandler) -> Operation:
    operation: Operation = handler.opt["operation"]
    return operation


def _security(handler: HTTPRouteHandler) -> list[Object]:
    route = facts(handler)
    if route.scope == OPEN:
        return []
    needed = {SECURITY: [route.scope]}
    return [needed, {}] if handler.opt.get("open_if") else [needed]


def _parameters(handler: HTTPRouteHandler) -> list[Object]:
    signature = inspect.signature(handler.fn).parameters
    made = []
    for name, (kind, told) in parameters(handler).items():
        default = signature[name].default
        schema = _plain(msgspec.json.schema(_without_none(kind))) | (told.schema_extra or {})
        if default not in (inspect.Parameter.empty, None):
            schema["default"] = default
        one: Object = {
            "name": name,
            "in": "query",
            "description": told.description or "",
            "required": default is inspect.Parameter.empty,
            "schema": schema,
        }
        if told.examples:
            one["example"] = told.examples[0].value
        made.append(one)
    return sorted(made, key=lambda one: not one["required"])


def _request_body(handler: HTTPRouteHandler) -> Object:
    example = _told(handler).example
    if facts(handler).body == NDJSON:
        line = msgspec.json.encode(example).decode() + "\n"
        return {
            "description": "One `UpsertIn` per line; blank lines are skipped. The body may be of "
            "any length, a line of `INDEXD_MAX_LINE_BYTES` bytes",
            "required": True,
            "content": {
                NDJSON: {
                    "schema": {"type": "string"},
                    "examples": {"usual": {"summary": "One document", "value": line}},
                }
            },
        }
    return {
        "required": True,
        "content": {
            JSON: {
                "schema": _reference(handler.opt["takes"]),
                "examples": {"usual": {"summary": "As a client sends it", "value": example}},
            }
        },
    }


def _responses(handler: HTTPRouteHandler) -> Object:
    answered = get_type_hints(handler.fn)["return"]
    is_struct = isinstance(answered, type) and issubclass(answered, msgspec.Struct)
    content = {JSON: {"schema": _reference(answered)}} if is_struct else _TEXT_CONTENT
    description = inspect.getdoc(answered) if is_struct else _STATUSES[200]
    responses: Object = {
        "200": {"description": description, "headers": _headers(200), "content": content}
    }
    for status, text in _told(handler).text_answers.items():
        responses[str(status)] = {
            "description": text,
            "headers": _headers(status),
            "content": _TEXT_CONTENT,
        }
    for status, errors in failures(handler).items():
        responses[str(status)] = {
            "description": _failure(status, errors),
            "headers": _headers(status),
            "content": {JSON: {"schema": _reference(Error)}},
            "x-codes": sorted({error.code for error in errors}),
        }
    return {
        status: {key: value for key, value in response.items() if value}
        for status, response in sorted(responses.items())
    }


_TEXT_CONTENT = {TEXT: {"schema": {"type": "string"}}}


def _failure(status: int, errors: Iterable[type[IndexdError]]) -> str:
    """What an answer of a status means, and the meaning of each code it can carry."""
    lines = {error.code: (inspect.getdoc(error) or "").splitlines()[0] for error in errors}
    return "\n".join(
        [
            _STATUSES.get(status, HTTPStatus(status).phrase) + ".",
            "",
            *(f"- `{code}`: {text}" for code, text in sorted(lines.items())),
        ]
    )


def _headers(status: int) -> Object:
    names = (*_ALWAYS, *_HEADERS_OF.get(status, ()))
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _curl(handler: HTTPRouteHandler) -> str:
    """A request to copy; what it names need not be there."""
    (path, _), example, route = _place(handler), _told(handler).example, facts(handler)
    url = EXAMPLE_SERVER + path
    if route.body is None and example:
        url += "?" + urlencode(example)
    lines = [f"curl '{url}'"]
    if route.scope != OPEN:
        lines.append('-H "Authorization: Bearer $INDEXD_KEY"')
    if route.body is not None:
        sent = msgspec.json.encode(example)
        shown = sent if route.body == NDJSON else msgspec.json.format(sent)
        text = shown.decode().replace("'", "'\\''")
        flag = "--data-binary" if route.body == NDJSON else "-d"
        lines += [f"-H 'Content-Type: {route.body}'", f"{flag} '{text}'"]
    return " \\\n  ".join(lines)


def _reference(kind: type[msgspec.Struct]) -> Object:
    return {"$ref": REFERENCE.format(name=kind.__name__)}


def _schemas(handlers: Iterable[HTTPRouteHandler]) -> Object:
    """Every struct that a body holds, by name."""
    taken: list[Any] = [UpsertIn]
    answered: list[Any] = [Error]
    for handler in handlers:
        if facts(handler).body == JSON:
            taken.append(handler.opt["takes"])
        answered.append(get_type_hints(handler.fn)["return"])
    sent, received = set(_structs(taken)), set(_structs(answered))
    _, made = msgspec.json.schema_components(
        sorted(sent | received, key=lambda one: one.__name__), ref_template=REFERENCE
    )
    by_name = {one.__name__: one for one in received - sent}
    return {
        name: _always_sent(_plain(schema), by_name[name]) if name in by_name else _plain(schema)
        for name, schema in sorted(made.items())
    }


def _structs(kinds: Iterable[Any]) -> Iterator[type[msgspec.Struct]]:
    """The structs among some types and inside of them."""
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield kind
            yield from _structs(get_type_hints(kind).values())
        else:
            yield from _structs(get_args(kind))


def _always_sent(schema: Object, kind: type[msgspec.Struct]) -> Object:
    """The schema of an answer: a default is no choice there, the field is always present."""
    if kind.__struct_config__.omit_defaults:
        for described in schema["properties"].values():
            described.pop("default", None)
        return schema
    hints = get_type_hints(kind)
    schema["required"] = [
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if msgspec.UnsetType not in get_args(hints[field.name])
    ]
    for described in schema["properties"].values():
        described.pop("default", None)
    return schema


def _plain(schema: Object) -> Object:
    """Without titles that only repeat a name."""
    return {key: value for key, value in schema.items() if key != "title"}


def _without_none(kind: Any) -> Any:
    """A query parameter that is not sent is None; None itself cannot be sent."""
    if get_origin(kind) not in (Union, types.UnionType):
        return kind
    return Union[tuple(one for one in get_args(kind) if one is not types.NoneType)]  # noqa: UP007
