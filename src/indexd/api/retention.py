"""What fades and what leaves, by which rule: looking only."""

from typing import Annotated

import structlog
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import Body

from indexd.api import openapi
from indexd.api.openapi import example
from indexd.api.parse import half_life, namespace_of, utc
from indexd.api.structs import DecayPreviewIn, DecayPreviewOut, RetentionOut
from indexd.api.wire import Json
from indexd.db import Connection
from indexd.service import Service
from indexd.store import decay, policies

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000


@get("/index/retention", operation_id="Retention")
async def retention(service: NamedDependency[Service]) -> RetentionOut:
    """The retention policies in force."""
    found, policy_hash = await service.database.read(policies.in_force)
    return RetentionOut(found.namespaces, found.defaults, policy_hash, found.source)


@post(
    "/index/decay/preview",
    dto=Json[DecayPreviewIn],
    return_dto=None,
    status_code=200,
    operation_id="DecayPreview",
)
async def decay_preview(
    data: Annotated[DecayPreviewIn, Body(examples=example(openapi.DECAY_PREVIEW))],
    service: NamedDependency[Service],
) -> DecayPreviewOut:
    """How far documents have faded, or would have under another half-life or at another time."""
    namespace = namespace_of(data.namespace)
    structlog.contextvars.bind_contextvars(namespace=namespace)
    at = utc(data.at, "at") or service.now()
    what_if = half_life(data.half_life_seconds)
    limit = min(data.limit or DEFAULT_LIMIT, MAX_LIMIT)

    async def look(connection: Connection) -> DecayPreviewOut:
        seconds = what_if or (await policies.of(connection, namespace)).half_life_seconds
        found = await decay.preview(
            connection, namespace, half_life_seconds=seconds, at=at, limit=limit
        )
        return DecayPreviewOut(
            namespace, found.total_documents, seconds, at, found.previews, found.curve
        )

    return await service.database.read(look)
