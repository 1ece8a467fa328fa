"""Routes about one document, and about those that searches found irrelevant."""

from typing import Annotated

import structlog
from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import Body, FromQuery

from indexd.access import Access
from indexd.api import openapi
from indexd.api.auth import scope
from indexd.api.openapi import example
from indexd.api.parse import checked_id, checked_limit, namespace_of
from indexd.api.structs import FeedbackIn, FeedbackOut, IrrelevantOut
from indexd.api.wire import Json
from indexd.service import Service
from indexd.store import lifecycle as store
from indexd.store import relevance
from indexd.store.documents import missing
from indexd.store.lifecycle import Lifecycle, StoredDocument


def _named(doc_id: str, namespace: str | None) -> tuple[str, str]:
    """Checked, and bound to the log line: namespace, doc_id."""
    names = namespace_of(namespace), checked_id(doc_id, "doc_id")
    structlog.contextvars.bind_contextvars(namespace=names[0], doc_id=names[1])
    return names


@get("/index/document", opt=scope("read", others="empty"), operation_id="Document")
async def document(
    service: NamedDependency[Service],
    access: NamedDependency[Access],
    doc_id: FromQuery[str],
    namespace: FromQuery[str | None] = None,
    vectors: FromQuery[bool] = False,
) -> StoredDocument:
    """A document with its chunks; with `vectors`, with their normalised embeddings."""
    space, wanted = _named(doc_id, namespace)
    inside = access.reads(space)
    return await service.database.read(
        lambda connection: store.document(connection, inside, wanted, vectors=vectors)
    )


@get("/index/lifecycle", opt=scope("read", others="empty"), operation_id="Lifecycle")
async def lifecycle(
    service: NamedDependency[Service],
    access: NamedDependency[Access],
    doc_id: FromQuery[str],
    namespace: FromQuery[str | None] = None,
) -> Lifecycle:
    """How far a document has faded, and which rule would remove it when."""
    space, wanted = _named(doc_id, namespace)
    at, inside = service.now(), access.reads(space)
    return await service.database.read(
        lambda connection: store.lifecycle(connection, inside, wanted, at=at)
    )


@get("/index/irrelevant", opt=scope("read", others="empty"), operation_id="Irrelevant")
async def irrelevant(
    service: NamedDependency[Service],
    access: NamedDependency[Access],
    namespace: FromQuery[str | None] = None,
    limit: FromQuery[int] = 100,
) -> IrrelevantOut:
    """The documents of a namespace that are marked irrelevant, with the evidence."""
    space, wanted = namespace_of(namespace), checked_limit(limit)
    structlog.contextvars.bind_contextvars(namespace=space)
    inside = access.reads(space)
    count, found = await service.database.read(
        lambda connection: relevance.irrelevant(connection, inside, limit=wanted)
    )
    return IrrelevantOut(space, count, count > len(found), found)


@post(
    "/index/feedback",
    opt=scope("write", others="403"),
    dto=Json[FeedbackIn],
    return_dto=None,
    status_code=200,
    operation_id="Feedback",
)
async def feedback(
    data: Annotated[FeedbackIn, Body(examples=example(openapi.FEEDBACK))],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> FeedbackOut:
    """Say whether a document is useful: useful unmarks it, useless marks it irrelevant."""
    space, wanted = _named(data.doc_id, data.namespace)
    access.writes(space)
    at = service.now()
    known = await service.database.write(
        lambda connection: relevance.judge(connection, space, wanted, useful=data.useful, at=at)
    )
    if not known:
        raise missing(space, wanted)
    return FeedbackOut()
