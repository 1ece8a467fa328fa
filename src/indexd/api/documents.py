"""Routes that write: upsert, bulk, delete."""

from functools import partial
from typing import Annotated

import structlog
from litestar import Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import Body

from indexd.access import Access
from indexd.api import bulk as bulk_body
from indexd.api import openapi, texts
from indexd.api.auth import scope
from indexd.api.departures import account, sum_up
from indexd.api.in_flight import stay_of
from indexd.api.limits import check_document
from indexd.api.openapi import NdjsonBody, example
from indexd.api.parse import checked_id, document_from, namespace_of
from indexd.api.structs import BulkOut, DeleteIn, DeleteOut, ForgottenOut, UpsertIn, UpsertOut
from indexd.api.wire import Json
from indexd.service import Service
from indexd.settings import Settings
from indexd.store import forget
from indexd.store import upsert as store
from indexd.store.documents import Document


@post(
    "/index/upsert",
    opt=scope("write", others="403"),
    dto=Json[UpsertIn],
    return_dto=None,
    status_code=200,
    operation_id="Upsert",
)
async def upsert(
    request: Request[None, Access, State],
    data: Annotated[UpsertIn, Body(examples=example(openapi.UPSERT))],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> UpsertOut:
    """Store a document with its chunks, replacing what it was before as a whole."""
    structlog.contextvars.bind_contextvars(doc_id=data.doc_id, namespace=data.namespace)
    stay = stay_of(request)
    check = partial(checked, data, service.settings)
    document = await service.large_work.run(stay.size if stay else 0, check)
    access.writes(document.namespace)
    structlog.contextvars.bind_contextvars(namespace=document.namespace)
    document = await texts.embedded(document, service)
    at = service.now()
    outcome = await service.database.write(
        lambda connection: store.upsert(connection, document, at=at)
    )
    [written] = outcome.written
    account(outcome.departures, service.metrics)
    forgotten = sum_up(outcome.departures, ForgottenOut())
    return UpsertOut(written.chunks, document.namespace, written.unchanged, forgotten=forgotten)


def checked(data: UpsertIn, settings: Settings) -> Document:
    """Raises InvalidRequest."""
    check_document(data, settings)
    return document_from(data)


@post(
    "/index/bulk",
    opt=scope("write", others="403"),
    status_code=200,
    operation_id="Bulk",
    operation_class=NdjsonBody,
    request_max_body_size=None,
)
async def bulk(
    request: Request[None, Access, State],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> BulkOut:
    """Store many documents: one upsert per line, each whole or not at all."""
    return await bulk_body.take(request, service, access)


@post(
    "/index/delete",
    opt=scope("write", others="403"),
    dto=Json[DeleteIn],
    return_dto=None,
    status_code=200,
    operation_id="Delete",
)
async def delete(
    data: Annotated[DeleteIn, Body(examples=example(openapi.DELETE))],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> DeleteOut:
    """Forget one document; also accepted when it is not there."""
    doc_id = checked_id(data.doc_id, "doc_id")
    namespace = access.writes(namespace_of(data.namespace))
    structlog.contextvars.bind_contextvars(doc_id=doc_id, namespace=namespace)
    at = service.now()
    gone = await service.database.write(
        lambda connection: forget.delete(connection, namespace, doc_id, at=at, actor=access.name)
    )
    account([gone] if gone else [], service.metrics)
    return DeleteOut()
