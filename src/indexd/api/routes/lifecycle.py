"""Routes about one document, and about those that searches found irrelevant."""

from typing import Annotated

import structlog
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from indexd.access import Access
from indexd.api import examples
from indexd.api.auth import scope
from indexd.api.operations import Operation, get, json_post
from indexd.api.parameters import DocId, Limit, Namespace
from indexd.api.parse import checked_limit
from indexd.api.results import too_large
from indexd.api.structs import FeedbackIn, FeedbackOut, IrrelevantOut
from indexd.context import Service
from indexd.errors import AnswerTooLarge, NotFound
from indexd.names import checked_id, namespace_of
from indexd.store import library
from indexd.store.documents import missing
from indexd.store.forgetting import lifecycle as store
from indexd.store.forgetting import relevance
from indexd.store.forgetting.lifecycle import Lifecycle
from indexd.store.library import StoredDocument, Wanted


def _named(doc_id: str, namespace: str | None) -> tuple[str, str]:
    """Checked, and bound to the log line: namespace, doc_id."""
    names = namespace_of(namespace), checked_id(doc_id, "doc_id")
    structlog.contextvars.bind_contextvars(namespace=names[0], doc_id=names[1])
    return names


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
    space, wanted = _named(doc_id, namespace)
    inside = access.reads(space)
    asked = Wanted(chunks=True, vectors=vectors, max_bytes=service.settings.max_answer_bytes)
    found = await service.database.read(
        lambda connection: library.by_ids(connection, inside, [wanted], asked)
    )
    if found is None:
        raise too_large()
    if not found:
        raise missing(space, wanted)
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
    space, wanted = _named(doc_id, namespace)
    at, inside = service.now(), access.reads(space)
    return await service.database.read(
        lambda connection: store.lifecycle(connection, inside, wanted, at=at)
    )


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
    space, wanted = namespace_of(namespace), checked_limit(limit)
    structlog.contextvars.bind_contextvars(namespace=space)
    inside = access.reads(space)
    count, found = await service.database.read(
        lambda connection: relevance.irrelevant(connection, inside, limit=wanted)
    )
    return IrrelevantOut(space, count, count > len(found), found)


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
    space, wanted = _named(data.doc_id, data.namespace)
    access.writes(space)
    at = service.now()
    known = await service.database.write(
        lambda connection: relevance.record_feedback(
            connection, space, wanted, useful=data.useful, at=at
        )
    )
    if not known:
        raise missing(space, wanted)
    return FeedbackOut()
