"""Routes about many documents: read them by id, list, count, facets, change, delete."""

from functools import partial

import structlog
from litestar.di import NamedDependency
from litestar.params import JSONBody

from indexd.access import Access
from indexd.api import examples
from indexd.api.auth import scope
from indexd.api.changes import facets_from, update_from
from indexd.api.deletions import record_deletions
from indexd.api.limits import check_list
from indexd.api.operations import Operation, json_post
from indexd.api.parse import cursor_after, doc_ids_from, filters_from, one_filter, page_from
from indexd.api.results import not_too_large
from indexd.api.structs import (
    DocumentsCountIn,
    DocumentsDeleteIn,
    DocumentsDeleteOut,
    DocumentsFacetsIn,
    DocumentsFacetsOut,
    DocumentsGetIn,
    DocumentsListIn,
    DocumentsListOut,
    DocumentsOut,
    DocumentsUpdateIn,
    DocumentsUpdateOut,
)
from indexd.context import Service
from indexd.errors import AnswerTooLarge, Conflict, FilterTooDear
from indexd.names import namespace_of
from indexd.store import facets as store_facets
from indexd.store import library as store
from indexd.store.filters import in_time
from indexd.store.forgetting import deletion, forget
from indexd.store.forgetting.deletion import Cause
from indexd.store.library import Counted, Wanted
from indexd.store.writing import update as writing


@json_post(
    "/index/documents/get",
    scope("read", others="empty"),
    Operation("GetDocuments", "Look", examples.DOCUMENTS_GET, (AnswerTooLarge,)),
)
async def get(
    data: JSONBody[DocumentsGetIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> DocumentsOut:
    """Read documents by their ids; those that are not stored are left out."""
    look = partial(
        store.by_ids,
        namespace=access.reads(_named(data.namespace)),
        doc_ids=doc_ids_from(data.doc_ids),
        wanted=Wanted(data.chunks, data.vectors, service.settings.max_answer_bytes, service.now()),
    )
    return DocumentsOut(not_too_large(await service.database.read(look)))


@json_post(
    "/index/documents/list",
    scope("read", others="empty"),
    Operation("ListDocuments", "Look", examples.DOCUMENTS_LIST, (FilterTooDear,)),
)
async def list_(
    data: JSONBody[DocumentsListIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> DocumentsListOut:
    """List documents page by page; one that stays is listed once, whatever is written meanwhile."""
    check_list(data, service.settings)
    page, filters = page_from(data), filters_from(one_filter(data.filters, data.filter))
    look = partial(
        store.listed,
        namespace=access.reads(_named(data.namespace)),
        filters=filters,
        page=page,
        wanted=Wanted(data.chunks, False, service.settings.max_answer_bytes, service.now()),
    )
    with in_time(filters):
        found = await service.database.read(look)
    return DocumentsListOut(found.documents, cursor_after(page, found.after))


@json_post(
    "/index/documents/count",
    scope("read", others="empty"),
    Operation("CountDocuments", "Look", examples.DOCUMENTS_COUNT, (FilterTooDear,)),
)
async def count(
    data: JSONBody[DocumentsCountIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> Counted:
    """Count the documents that match, and all chunks of these."""
    check_list(data, service.settings)
    filters = filters_from(one_filter(data.filters, data.filter))
    namespace = access.reads(_named(data.namespace))
    with in_time(filters):
        return await service.database.read(
            partial(store.counted, namespace=namespace, filters=filters, at=service.now())
        )


@json_post(
    "/index/documents/facets",
    scope("read", others="empty"),
    Operation("DocumentFacets", "Look", examples.DOCUMENTS_FACETS, (FilterTooDear,)),
)
async def facets(
    data: JSONBody[DocumentsFacetsIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> DocumentsFacetsOut:
    """Count the documents that match by the values of their fields."""
    asked = facets_from(data, service.settings, at=service.now())
    namespace = access.reads(_named(data.namespace))
    with in_time(asked.filters):
        look = partial(store_facets.facets, namespace=namespace, asked=asked)
        return DocumentsFacetsOut(await service.database.read(look))


@json_post(
    "/index/documents/update",
    scope("write", others="403"),
    Operation("UpdateDocuments", "Store", examples.DOCUMENTS_UPDATE, (Conflict, FilterTooDear)),
)
async def update(
    data: JSONBody[DocumentsUpdateIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> DocumentsUpdateOut:
    """Change meta, tags, expiry or half-life of documents; their text and vectors stay."""
    at, namespace = service.now(), access.writes(_named(data.namespace))
    asked = update_from(data, service.settings, at=at)
    work = partial(writing.update, namespace=namespace, asked=asked, at=at, dry_run=data.dry_run)
    with in_time(asked.filters):
        done = await (service.database.read if data.dry_run else service.database.write)(work)
    return DocumentsUpdateOut(done.count, done.missing)


@json_post(
    "/index/documents/delete",
    scope("write", others="403"),
    Operation("DeleteDocuments", "Forget", examples.DOCUMENTS_DELETE),
)
async def delete(
    data: JSONBody[DocumentsDeleteIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> DocumentsDeleteOut:
    """Delete documents by their ids, in one transaction and as one event of the log."""
    namespace, doc_ids = access.writes(_named(data.namespace)), doc_ids_from(data.doc_ids)
    cause = Cause("delete", _reason(data), access.name, service.now())
    work = _look if data.dry_run else _delete
    stored = await work(service, namespace, doc_ids, cause=cause)
    return DocumentsDeleteOut(len(stored), [one for one in doc_ids if one not in stored])


def _reason(sent: DocumentsDeleteIn) -> str:
    return (sent.reason or "").strip() or forget.BY_REQUEST


async def _look(service: Service, namespace: str, doc_ids: list[str], *, cause: Cause) -> set[str]:
    """Those that are stored."""
    look = partial(deletion.stored, namespace=namespace, doc_ids=doc_ids, at=cause.at)
    return await service.database.read(look)


async def _delete(
    service: Service, namespace: str, doc_ids: list[str], *, cause: Cause
) -> set[str]:
    """Those that were stored."""
    gone, stored = await service.database.write(
        lambda connection: forget.delete_many(connection, namespace, doc_ids, cause)
    )
    record_deletions(gone, service.metrics)
    return stored


def _named(sent: str | None) -> str:
    """The namespace, bound to the log line."""
    namespace = namespace_of(sent)
    structlog.contextvars.bind_contextvars(namespace=namespace)
    return namespace
