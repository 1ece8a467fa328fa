"""The one place that turns a failure into the body of an answer, which is `Error`."""

import re
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import ClientException, HTTPException

from indexd.api.structs import Error
from indexd.errors import IndexdError

log = structlog.get_logger()


def answer(_: Request[Any, Any, Any], error: Exception) -> Response[Error]:
    """Handles every exception that a route or the routing itself raises."""
    if isinstance(error, IndexdError):
        body = Error(
            error.message,
            error.code,
            error.hint,
            dict(error.details) if error.details is not None else None,
        )
        return _response(error.status, body, dict(error.headers))
    if isinstance(error, HTTPException):
        return _response(error.status_code, _from_litestar(error), dict(error.headers or {}))
    log.error("request failed", exc_info=error)
    return _response(500, Error("the server failed; its log says more", "internal_error"), {})


_MISSING = re.compile("Missing required query parameter '([^']+)'")


def _from_litestar(error: HTTPException) -> Error:
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_").replace("-", "_")
    if status is HTTPStatus.NOT_FOUND:
        return Error("there is no such route", "unknown_route", "/schema lists them all")
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        return Error("the route does not take this method", code, "/schema lists them all")
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Error("the body is larger than max_body_bytes allows", "body_too_large")
    if named := _MISSING.match(error.detail or ""):
        return Error(f"{named[1]}: expected as a query parameter", "invalid_field")
    if isinstance(error, ClientException) and isinstance(error.extra, list) and error.extra:
        first = error.extra[0]
        if first.get("key") == "data":
            return Error("the body is empty, expected JSON", "invalid_json")
        return Error(f"{first.get('key', 'the request')}: {first['message']}", "invalid_field")
    return Error(error.detail or status.phrase, code)


def _response(status: int, body: Error, headers: dict[str, str]) -> Response[Error]:
    return Response(body, status_code=status, headers=headers, media_type=MediaType.JSON)


def encoded(error: IndexdError) -> bytes:
    """The body alone, for answers given outside of any route."""
    return msgspec.json.encode(Error(error.message, error.code, error.hint))
