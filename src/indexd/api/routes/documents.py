"""Routes that write: upsert, bulk, delete."""

from functools import partial

import structlog
from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import JSONBody

from indexd import embedding
from indexd.access import Access
from indexd.api import bulk as bulk_body
from indexd.api import examples
from indexd.api.auth import scope
from indexd.api.deletions import count_by_reason, record_deletions
from indexd.api.in_flight import stay_of
from indexd.api.limits import check_document
from indexd.api.operations import Operation, json_post, ndjson_post
from indexd.api.parse import document_from
from indexd.api.structs import BulkOut, DeleteIn, DeleteOut, ForgottenOut, UpsertIn, UpsertOut
from indexd.context import Service
from indexd.errors import (
    Conflict,
    DimensionMismatch,
    DuplicateChunkId,
    EmbedderUnavailable,
    InvalidEmbedding,
    ModelMismatch,
)
from indexd.names import checked_id, namespace_of
from indexd.settings import Settings
from indexd.store.documents import Document
from indexd.store.forgetting import deletion, forget
from indexd.store.writing import upsert as store


@json_post(
    "/index/upsert",
    scope("write", others="403"),
    Operation(
        "Upsert",
        "Store",
        examples.UPSERT,
        (
            InvalidEmbedding,
            DimensionMismatch,
            DuplicateChunkId,
            ModelMismatch,
            Conflict,
            EmbedderUnavailable,
        ),
    ),
)
async def upsert(
    request: Request[None, Access, State],
    data: JSONBody[UpsertIn],
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
    document = await embedding.embedded(document, service)
    at = service.now()
    outcome = await service.database.write(
        lambda connection: store.upsert(connection, document, at=at)
    )
    [written] = outcome.written
    record_deletions(outcome.deletions, service.metrics)
    forgotten = count_by_reason(outcome.deletions, ForgottenOut())
    return UpsertOut(
        written.chunks,
        document.namespace,
        written.unchanged,
        written.version,
        "skipped" if written.skipped else "accepted",
        forgotten,
    )


def checked(data: UpsertIn, settings: Settings) -> Document:
    """Raises InvalidRequest."""
    check_document(data, settings)
    return document_from(data)


@ndjson_post(
    "/index/bulk", scope("write", others="403"), Operation("Bulk", "Store", examples.UPSERT)
)
async def bulk(
    request: Request[None, Access, State],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> BulkOut:
    """Store many documents: one upsert per line, each whole or not at all."""
    return await bulk_body.take(request, service, access)


@json_post(
    "/index/delete",
    scope("write", others="403"),
    Operation("Delete", "Forget", examples.DELETE),
)
async def delete(
    data: JSONBody[DeleteIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> DeleteOut:
    """Forget one document; also accepted when it is not there."""
    doc_id = checked_id(data.doc_id, "doc_id")
    namespace = access.writes(namespace_of(data.namespace))
    structlog.contextvars.bind_contextvars(doc_id=doc_id, namespace=namespace)
    if data.dry_run:
        return DeleteOut(await _look(service, namespace, doc_id))
    return DeleteOut(await _delete(service, namespace, doc_id, actor=access.name))


async def _look(service: Service, namespace: str, doc_id: str) -> int:
    """How many documents would be deleted."""
    look = partial(deletion.stored, namespace=namespace, doc_ids=[doc_id], at=service.now())
    return len(await service.database.read(look))


async def _delete(service: Service, namespace: str, doc_id: str, *, actor: str) -> int:
    """How many documents were deleted: 1, or 0 where it was not there."""
    at = service.now()
    gone, stored = await service.database.write(
        lambda connection: forget.delete(connection, namespace, doc_id, at=at, actor=actor)
    )
    record_deletions(gone, service.metrics)
    return len(stored)
