"""Routes about one document, and about those that searches found irrelevant."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, NamedTuple, TypeVar

import structlog
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from indexd.access import Access
from indexd.api import examples
from indexd.api.auth import scope
from indexd.api.operations import Operation, get, json_post
from indexd.api.parameters import DocId, Limit, Namespace
from indexd.api.parse import checked_limit
from indexd.api.results import not_too_large
from indexd.api.structs import FeedbackIn, FeedbackOut, IrrelevantOut
from indexd.context import Service
from indexd.db.pool import Connection
from indexd.errors import AnswerTooLarge, NotFound
from indexd.names import checked_id, namespace_of
from indexd.store import library
from indexd.store.documents import missing
from indexd.store.forgetting import lifecycle as store
from indexd.store.forgetting import relevance
from indexd.store.forgetting.lifecycle import Lifecycle
from indexd.store.library import StoredDocument, Wanted

T = TypeVar("T")


class DocumentName(NamedTuple):
    namespace: str
    doc_id: str


def _named(doc_id: str, namespace: str | None) -> DocumentName:
    """Checked, and bound to the log line. Raises InvalidField."""
    name = DocumentName(namespace_of(namespace), checked_id(doc_id, "doc_id"))
    structlog.contextvars.bind_contextvars(namespace=name.namespace, doc_id=name.doc_id)
    return name


async def _read(
    service: Service,
    access: Access,
    name: DocumentName,
    look: Callable[[Connection, str, str], Awaitable[T]],
) -> T:
    """What `look` finds of a document, given the namespace that this key reads and the id."""
    namespace = access.reads(name.namespace)
    return await service.database.read(lambda connection: look(connection, namespace, name.doc_id))


@get(
    "/index/document",
    scope("read", others="empty"),
    Operation("Document", "Look", examples.DOCUMENT, (NotFound, AnswerTooLarge)),
)
async def document(
    service: NamedDependency[Service],
    access: NamedDependency[Access],
    doc_id: DocId,
    namespace: Namespace = None,
    vectors: Annotated[
        bool, QueryParameter(description="Whether each chunk carries its normalised vector")
    ] = False,
) -> StoredDocument:
    """A document with its chunks; with `vectors`, with their normalised embeddings."""
    asked = Wanted(True, vectors, service.settings.max_answer_bytes, service.now())
    return await _read(service, access, _named(doc_id, namespace), partial(_whole, asked=asked))


async def _whole(
    connection: Connection, namespace: str, doc_id: str, *, asked: Wanted
) -> StoredDocument:
    """Raises NotFound or AnswerTooLarge."""
    found = not_too_large(await library.by_ids(connection, namespace, [doc_id], asked))
    if not found:
        raise missing(namespace, doc_id)
    return found[0]


@get(
    "/index/lifecycle",
    scope("read", others="empty"),
    Operation("Lifecycle", "Look", examples.DOCUMENT, (NotFound,)),
)
async def lifecycle(
    service: NamedDependency[Service],
    access: NamedDependency[Access],
    doc_id: DocId,
    namespace: Namespace = None,
) -> Lifecycle:
    """How far a document has faded, and which rule would remove it when."""
    look = partial(store.lifecycle, at=service.now())
    return await _read(service, access, _named(doc_id, namespace), look)


@get(
    "/index/irrelevant",
    scope("read", others="empty"),
    Operation("Irrelevant", "Fade", examples.IRRELEVANT),
)
async def irrelevant(
    service: NamedDependency[Service],
    access: NamedDependency[Access],
    namespace: Namespace = None,
    limit: Limit = 100,
) -> IrrelevantOut:
    """The documents of a namespace that are marked irrelevant, with the evidence."""
    named = namespace_of(namespace)
    structlog.contextvars.bind_contextvars(namespace=named)
    look = partial(
        relevance.irrelevant,
        namespace=access.reads(named),
        limit=checked_limit(limit),
        at=service.now(),
    )
    count, found = await service.database.read(look)
    return IrrelevantOut(named, count, count > len(found), found)


@json_post(
    "/index/feedback",
    scope("write", others="403"),
    Operation("Feedback", "Fade", examples.FEEDBACK, (NotFound,)),
)
async def feedback(
    data: JSONBody[FeedbackIn],
    service: NamedDependency[Service],
    access: NamedDependency[Access],
) -> FeedbackOut:
    """Say whether a document is useful: useful unmarks it, useless marks it irrelevant."""
    name = _named(data.doc_id, data.namespace)
    access.writes(name.namespace)
    await _record_feedback(service, name, useful=data.useful)
    return FeedbackOut()


async def _record_feedback(service: Service, name: DocumentName, *, useful: bool) -> None:
    """Raises NotFound."""
    at = service.now()
    is_there = await service.database.write(
        lambda connection: relevance.record_feedback(connection, *name, useful=useful, at=at)
    )
    if not is_there:
        raise missing(*name)
