"""A chunk that was found, and how it is read from a row."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from indexd.db.pool import Connection
from indexd.store import rows
from indexd.store.documents import SourceRef

_COLUMNS = {
    "doc_id": "best.doc_id",
    "chunk_id": "best.chunk_id",
    "score": "best.score",
    "similarity": "best.similarity",
    "decay": "{decay}",
    "age_seconds": "greatest(date_part('epoch', %(at)s - best.ingested_at), 0)",
    "half_life_seconds": "best.half_life",
    "text": "{chunk}.text",
    "meta": "{chunk}.meta",
    "document_meta": "document.meta",
    "version": "document.version",
    "tags": "{chunk}.tags",
    "ingested_at": "best.ingested_at",
    "words": "{words}",
    "origin": "document.source_ref_origin",
    "origin_id": "document.source_ref_id",
    "origin_offset": "document.source_ref_offset",
    "trust_level": "document.source_ref_trust_level",
    "injected_by": "document.source_ref_injected_by",
}
"""The only list of a hit's columns: name of the field, and its expression over the relations
`best`, `chunk` and `document`."""

FIELDS = tuple(_COLUMNS)
"""Names of the columns, in their order: that of the fields of Hit."""


DECAY = "indexd.decay(best.ingested_at, best.half_life, %(at)s)"


def columns(words: str = "NULL::float8[]", *, chunk: str = "chunk", decay: str = DECAY) -> str:
    """SQL: a hit's columns; `words` and `decay` are expressions of the words that it holds and of
    its decay, `chunk` is the relation that has its text.
    """
    given = {"{words}": words, "{chunk}": chunk, "{decay}": decay}
    found = _COLUMN_LIST
    for name, expression in given.items():
        found = found.replace(name, expression)
    return found


_COLUMN_LIST = ",\n               ".join(
    f"{expression} AS {name}" for name, expression in _COLUMNS.items()
)


class Word(msgspec.Struct, frozen=True):
    """A word of the query that a hit holds, and its share of the similarity."""

    word: str
    share: float


class Hit(msgspec.Struct, frozen=True):
    """A chunk that was found: a row of `columns`.

    `score` is similarity x decay, in mode hybrid the fused rank. `words` are the parts of the
    similarity by the terms of the query, None where it was not found by words; `matched` are the
    words that counted, the weightiest first, `excerpt` is the part of the text where they stand,
    and `highlights` are their offsets in it. `origin` is None where the document names no source.
    """

    doc_id: str
    chunk_id: str
    score: float
    similarity: float
    decay: float
    age_seconds: float
    half_life_seconds: float | None
    text: str
    meta: dict[str, Any]
    document_meta: dict[str, Any]
    version: int
    tags: list[str]
    ingested_at: datetime
    words: list[float] | None
    origin: str | None
    origin_id: str
    origin_offset: str | None
    trust_level: str | None
    injected_by: str | None
    irrelevant_since: datetime | None = None
    embedding: list[float] | None = None
    matched: tuple[Word, ...] = ()
    excerpt: str | None = None
    highlights: tuple[tuple[int, int], ...] = ()

    @property
    def source_ref(self) -> SourceRef | None:
        """Where its document came from."""
        if self.origin is None:
            return None
        return SourceRef(
            self.origin, self.origin_id, self.origin_offset, self.trust_level, self.injected_by
        )


async def fetch(connection: Connection, statement: str, values: Mapping[str, Any]) -> list[Hit]:
    """The hits that a statement answers, in its order."""
    return await rows.prepared(connection, Hit, statement, values)


class _Vector(msgspec.Struct, frozen=True):
    """A vector of pgvector, and whose it is; None where the chunk has none."""

    doc_id: str
    chunk_id: str
    embedding: Any


async def with_vectors(connection: Connection, namespace: str, hits: Sequence[Hit]) -> list[Hit]:
    """The same hits, each with its vector in float32, if it has one."""
    found = await rows.every(
        connection,
        _Vector,
        """
        /* indexd:search.vectors */
        SELECT doc_id, chunk_id, embedding
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND (doc_id, chunk_id) IN (
                SELECT *
                  FROM unnest(%(doc_ids)s::text[], %(chunk_ids)s::text[])
               )
        """,
        {
            "namespace": namespace,
            "doc_ids": [hit.doc_id for hit in hits],
            "chunk_ids": [hit.chunk_id for hit in hits],
        },
    )
    vectors = {
        (one.doc_id, one.chunk_id): one.embedding.to_numpy().tolist()
        for one in found
        if one.embedding is not None
    }
    return [
        msgspec.structs.replace(hit, embedding=vectors.get((hit.doc_id, hit.chunk_id)))
        for hit in hits
    ]


class _Mark(msgspec.Struct, frozen=True):
    doc_id: str
    irrelevant_since: datetime


async def with_marks(connection: Connection, namespace: str, hits: Sequence[Hit]) -> list[Hit]:
    """The same hits; those of documents marked irrelevant say since when."""
    marks = await rows.every(
        connection,
        _Mark,
        """
        /* indexd:search.marks */
        SELECT doc_id, irrelevant_since
          FROM indexd.relevance
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(doc_ids)s)
           AND irrelevant_since IS NOT NULL
        """,
        {"namespace": namespace, "doc_ids": [hit.doc_id for hit in hits]},
    )
    since = {mark.doc_id: mark.irrelevant_since for mark in marks}
    return [
        msgspec.structs.replace(hit, irrelevant_since=since[hit.doc_id])
        if hit.doc_id in since
        else hit
        for hit in hits
    ]
