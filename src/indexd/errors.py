"""All errors that a client or an admin can get.

    IndexdError                   500 internal_error
    ├── ConfigurationError        (stops the start; never answered over HTTP)
    ├── InvalidRequest            400 invalid_request
    │   ├── InvalidJson           400 invalid_json
    │   ├── InvalidField          400 invalid_field
    │   │   └── UnknownField      400 unknown_field          (with a hint)
    │   ├── InvalidEmbedding      400 invalid_embedding
    │   ├── DimensionMismatch     400 dimension_mismatch
    │   ├── DuplicateChunkId      400 duplicate_chunk_id
    │   ├── MissingQuery          400 missing_query
    │   ├── ModelMismatch         400 embedding_model_mismatch
    │   ├── UnsafeForget          400 unsafe_forget          (with a hint)
    │   ├── AnswerTooLarge        400 answer_too_large       (with a hint)
    │   └── IncompleteBody        400 incomplete_body        (the client has left)
    ├── Unauthorized              401 unauthorized           (with WWW-Authenticate)
    ├── Forbidden                 403 forbidden
    │   ├── ScopeMissing          403 scope_missing
    │   ├── NamespaceForbidden    403 namespace_forbidden
    │   └── OriginNotAllowed      403 origin_not_allowed
    ├── NotFound                  404 not_found
    │   └── PlanNotFound          404 plan_not_found
    ├── BodyTimeout               408 body_timeout           (and the connection is closed)
    ├── Conflict                  409 conflict               (with the stored version)
    ├── PlanDrifted               409 plan_drifted           (with the drift)
    ├── BodyTooLarge              413 body_too_large
    ├── UnsupportedContentType    415 unsupported_content_type
    ├── HostNotAllowed            421 host_not_allowed
    ├── UnknownNamespace          422 unknown_namespace
    ├── RateLimited               429 rate_limited           (with Retry-After)
    └── Unavailable               503 unavailable            (with Retry-After)
        ├── Overloaded            503 overloaded
        ├── DatabaseUnavailable   503 database_unavailable
        │   └── DatabaseRefusal   503 database_unavailable
        │       ├── DatabaseReadOnly   503 read_only
        │       ├── DatabaseFull       503 disk_full
        │       └── DatabasePrivilege  503 insufficient_privilege
        ├── WritesPaused          503 writes_paused
        └── EmbedderUnavailable   503 embedder_unavailable
            └── EmbedderRefused   503 embedder_unavailable

The message is one sentence that says what is wrong and what was expected. It never holds a text,
a vector or a key of a client; ids and counts it may hold.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar


class IndexdError(Exception):
    """The service failed; this is not the client's fault."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.message = message or (self.__doc__ or "").splitlines()[0]
        self.hint = hint
        self.details = details
        super().__init__(self.message)


class ConfigurationError(IndexdError):
    """A setting, the database or a file of the operator's is not as it must be."""


class InvalidRequest(IndexdError):
    """The request is not one that this route takes."""

    status = 400
    code = "invalid_request"


class InvalidJson(InvalidRequest):
    """The body is not valid JSON."""

    code = "invalid_json"


class InvalidField(InvalidRequest):
    """A field is missing or not of its type."""

    code = "invalid_field"


class UnknownField(InvalidField):
    """A field of a body or a query parameter that this route does not have."""

    code = "unknown_field"


class InvalidEmbedding(InvalidRequest):
    """An embedding must be an array of 1 to 16,000 finite numbers, not all zero."""

    code = "invalid_embedding"


class DimensionMismatch(InvalidRequest):
    """The embedding has another dimension than the namespace."""

    code = "dimension_mismatch"


class DuplicateChunkId(InvalidRequest):
    """Two chunks of the document have the same id."""

    code = "duplicate_chunk_id"


class ModelMismatch(InvalidRequest):
    """The embedding comes from another model than the namespace's."""

    code = "embedding_model_mismatch"


class MissingQuery(InvalidRequest):
    """A search needs an embedding or a text."""

    code = "missing_query"


class UnsafeForget(InvalidRequest):
    """A forget that says too little about what it is to remove."""

    code = "unsafe_forget"


class PlanRequired(UnsafeForget):
    """A forget by `where` alone: only what a dry run has shown is removed."""

    code = "plan_required"


class IncompleteBody(InvalidRequest):
    """The client left before its body was complete."""

    code = "incomplete_body"


class AnswerTooLarge(InvalidRequest):
    """The answer would be larger than the service sends."""

    code = "answer_too_large"


class Unauthorized(IndexdError):
    """Expected a key of this service as `Authorization: Bearer <key>`."""

    status = 401
    code = "unauthorized"
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})


class Forbidden(IndexdError):
    """The key does not allow this."""

    status = 403
    code = "forbidden"


class ScopeMissing(Forbidden):
    """The key's scope does not reach this route."""

    code = "scope_missing"


class NamespaceForbidden(Forbidden):
    """The key is limited to namespaces, and this is none of them."""

    code = "namespace_forbidden"


class OriginNotAllowed(Forbidden):
    """The request comes from a page of another origin; expected one of this server, or no page."""

    code = "origin_not_allowed"


class NotFound(IndexdError):
    """There is no such thing."""

    status = 404
    code = "not_found"


class PlanNotFound(NotFound):
    """There is no such plan, or no longer."""

    code = "plan_not_found"


class BodyTimeout(IndexdError):
    """The body came too slowly; expected one that arrives at the least rate of the server."""

    status = 408
    code = "body_timeout"
    headers = MappingProxyType({"Connection": "close"})


class Conflict(IndexdError):
    """The stored document is not as the write expects it."""

    status = 409
    code = "conflict"


class PlanDrifted(IndexdError):
    """Documents of the plan changed since it was made."""

    status = 409
    code = "plan_drifted"


class BodyTooLarge(IndexdError):
    """The body is larger than the server takes."""

    status = 413
    code = "body_too_large"


class UnsupportedContentType(IndexdError):
    """The Content-Type is not one that this route takes."""

    status = 415
    code = "unsupported_content_type"


class HostNotAllowed(IndexdError):
    """The Host is no name of this server; expected localhost or one of INDEXD_ALLOWED_HOSTS."""

    status = 421
    code = "host_not_allowed"


class RateLimited(IndexdError):
    """The requests come faster than the server allows."""

    status = 429
    code = "rate_limited"

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(max(1, math.ceil(retry_after_seconds)))}


class UnknownNamespace(IndexdError):
    """The namespace is not one of those that this route knows."""

    status = 422
    code = "unknown_namespace"


class Unavailable(IndexdError):
    """Something the request needs is not there for the moment."""

    status = 503
    code = "unavailable"
    headers = MappingProxyType({"Retry-After": "1"})


class FilterTooDear(Unavailable):
    """What the filter lets through could not be found in the time that a statement has."""

    code = "filter_too_dear"


class Overloaded(Unavailable):
    """The server has more requests than it can serve in time; try again shortly."""

    code = "overloaded"


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached; try again shortly."""

    code = "database_unavailable"


class TookTooLong(DatabaseUnavailable):
    """A statement took longer than the server allows; try again."""


class WritesPaused(Unavailable):
    """The namespace takes no writes for the moment; try again shortly."""

    code = "writes_paused"


class DatabaseRefusal(DatabaseUnavailable):
    """The database is there and refuses the statement for a reason that is not the client's."""

    headers = MappingProxyType({"Retry-After": "5"})


class DatabaseReadOnly(DatabaseRefusal):
    """The database takes no writes at present; searches go on."""

    code = "read_only"


class DatabaseFull(DatabaseRefusal):
    """The database has no disk space left; searches and most reads go on."""

    code = "disk_full"


class DatabasePrivilege(DatabaseRefusal):
    """The service's database role lacks a right; the server's log names it."""

    code = "insufficient_privilege"


class EmbedderUnavailable(Unavailable):
    """The embedder is not configured or failed."""

    code = "embedder_unavailable"

    def __init__(self, message: str | None = None, *, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.headers = MappingProxyType({"Retry-After": str(retry_after_seconds)})


class EmbedderRefused(EmbedderUnavailable):
    """The embedder does not take this text; others it may."""
