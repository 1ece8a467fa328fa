"""Embeds queries and documents that have no vectors, before a write transaction begins."""

import time
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType

from indexd import vectors
from indexd.context import Service
from indexd.db.pool import Connection
from indexd.embedders import Contact, Embedder
from indexd.errors import (
    EmbedderRefused,
    EmbedderUnavailable,
    IndexdError,
    InvalidEmbedding,
    ModelMismatch,
)
from indexd.store import namespaces as namespace_facts
from indexd.store.documents import Document, check_siblings
from indexd.store.search import Query
from indexd.store.writing import stored_vectors
from indexd.store.writing.vector_space import VectorSpace, vector_spaces
from indexd.vectors import Embedding, Model

Known = dict[tuple[str, str], Embedding]
"""Vectors by namespace and text."""


async def with_vector(query: Query, service: Service) -> tuple[Query, float | UnsetType]:
    """The query with its vector, and the milliseconds spent on embedding (UNSET if none)."""
    if query.mode == "lexical" or query.vector is not None or service.embedder is None:
        return query, UNSET
    if query.is_auto:
        alone = await service.database.read(
            lambda connection: namespace_facts.holds_texts_alone(connection, query.namespace)
        )
        if alone:
            return msgspec.structs.replace(query, mode="lexical"), UNSET
    started = time.perf_counter()
    model, vector = await service.embedder.query(query.text)
    elapsed = (time.perf_counter() - started) * 1000
    found = msgspec.structs.replace(query, vector=vector, model=model, embedded_here=True)
    return found, round(elapsed, 3)


async def embedded(document: Document, service: Service) -> Document:
    """The document with all its vectors. Raises IndexdError if one cannot be made."""
    [outcome] = await embedded_each([document], service)
    if isinstance(outcome, IndexdError):
        raise outcome
    return outcome


async def embedded_each(
    documents: Sequence[Document], service: Service
) -> list[Document | IndexdError]:
    """Each document with all its vectors, or the error if one of its vectors cannot be made.

    A chunk whose text is stored in its document already reuses the stored vector. All other texts
    are sent to the embedder together.
    """
    outcomes: list[Document | IndexdError] = list(documents)
    pending = [place for place, document in enumerate(documents) if _pending_texts(document)]
    if not pending:
        return outcomes
    embedder = service.embedder
    if embedder is None:
        for place in pending:
            outcomes[place] = _no_embedder(documents[place])
        return outcomes
    try:
        contact = await embedder.contact()
    except EmbedderUnavailable as error:
        for place in pending:
            outcomes[place] = error
        return outcomes
    wanted = [documents[place] for place in pending]
    spaces, known = await service.database.read(
        lambda connection: _look_up(connection, wanted, contact.model)
    )
    service.metrics.embed_reused.inc(
        sum(
            (document.namespace, text) in known
            for document in wanted
            for text in _pending_texts(document)
        )
    )
    fitting = []
    for place in pending:
        document = documents[place]
        try:
            _check_document(document, spaces.get(document.namespace), contact)
            fitting.append(place)
        except IndexdError as error:
            outcomes[place] = error
    for place, outcome in zip(
        fitting,
        await _filled(embedder, [documents[place] for place in fitting], known, contact.model),
        strict=True,
    ):
        outcomes[place] = outcome
    return outcomes


def _pending_texts(document: Document) -> list[str]:
    return [chunk.text for chunk in document.chunks if chunk.is_pending]


def _no_embedder(document: Document) -> InvalidEmbedding:
    chunk_id = next(chunk.chunk_id for chunk in document.chunks if chunk.is_pending)
    return InvalidEmbedding(
        f"chunk {chunk_id!r} has no embedding and no embedder is configured; "
        "send it as meta.embedding",
        hint="with embed: false the text is stored without a vector, and found by words",
    )


async def _look_up(
    connection: Connection, documents: Sequence[Document], model: Model
) -> tuple[dict[str, VectorSpace], Known]:
    """The vector spaces of the namespaces, and the stored vectors that can be reused."""
    namespaces = {document.namespace for document in documents}
    spaces = await vector_spaces(connection, sorted(namespaces))
    known: Known = {}
    for namespace, space in spaces.items():
        # Vectors are reused only if it is known that this model made them.
        if space.model == model:
            members = [document for document in documents if document.namespace == namespace]
            found = await stored_vectors.vectors_of(
                connection,
                namespace,
                [document.doc_id for document in members],
                list({text for document in members for text in _pending_texts(document)}),
            )
            known |= {(namespace, text): vector for text, vector in found.items()}
    return spaces, known


def _check_document(document: Document, space: VectorSpace | None, contact: Contact) -> None:
    """Raise an error, before anything is embedded, if the document could not be stored later."""
    where = f"chunk {next(c.chunk_id for c in document.chunks if c.is_pending)!r}"
    if not contact.model.agrees_with(document.model):
        raise ModelMismatch(
            f"embedding_model is {document.model}, but the embedder, which has to embed {where}, "
            f"is {contact.model}"
        )
    if space is None:
        return
    if space.model is not None and not space.model.agrees_with(contact.model):
        raise vectors.other_model(where, document.namespace, space.model, contact.model)
    if space.dimension is not None and space.dimension != contact.dimension:
        raise vectors.embedder_mismatch(document.namespace, space.dimension, contact.dimension)


async def _filled(
    embedder: Embedder, documents: Sequence[Document], known: Known, model: Model
) -> list[Document | IndexdError]:
    missing = list(
        dict.fromkeys(
            text
            for document in documents
            for text in _pending_texts(document)
            if (document.namespace, text) not in known
        )
    )
    fresh: dict[str, Embedding] = {}
    failed: IndexdError | None = None
    try:
        if missing:
            answer = await embedder.embed(missing)
            fresh, model = dict(zip(missing, answer.vectors, strict=True)), answer.model
    except EmbedderRefused as error:
        if len(documents) > 1:
            # The model does not accept one of the texts. The documents are halved until only the
            # document with that text fails.
            half = len(documents) // 2
            return [
                *await _filled(embedder, documents[:half], known, model),
                *await _filled(embedder, documents[half:], known, model),
            ]
        failed = error
    except EmbedderUnavailable as error:
        failed = error
    return [_with_vectors(document, known, fresh, model, failed) for document in documents]


def _with_vectors(
    document: Document,
    known: Known,
    fresh: dict[str, Embedding],
    model: Model,
    failed: IndexdError | None,
) -> Document | IndexdError:
    chunks = []
    for chunk in document.chunks:
        if chunk.is_pending:
            vector = known.get((document.namespace, chunk.text), fresh.get(chunk.text))
            if vector is None:
                return failed or EmbedderUnavailable()
            chunk = msgspec.structs.replace(chunk, embedding=vector, embedded_here=True)
        chunks.append(chunk)
    try:
        check_siblings(tuple(chunks))
    except IndexdError as error:
        return error
    return msgspec.structs.replace(document, chunks=tuple(chunks), model=model)
