"""Scoring candidates and answering the best of them, whichever way they were found."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from indexd.db import Connection
from indexd.store.documents import SourceRef
from indexd.store.filters import Filters, matches


class Hit(msgspec.Struct, frozen=True):
    """A chunk that was found. `score` is similarity x decay; `words` are the matching, if any."""

    doc_id: str
    chunk_id: str
    score: float
    similarity: float
    decay: float
    age_seconds: float
    half_life_seconds: float | None
    text: str
    meta: dict[str, Any]
    tags: list[str]
    source_ref: SourceRef | None
    ingested_at: datetime
    words: list[str] | None
    irrelevant_since: datetime | None = None


async def best(
    connection: Connection,
    candidates: str,
    values: dict[str, Any],
    *,
    words: str = "NULL",
    per_document: bool = False,
) -> list[Hit]:
    """Score what the statement `candidates` finds and answer the best k, or k documents' best.

    Only keys and numbers are sorted; text and meta are fetched for the k that remain. OFFSET 0
    keeps the planner from computing a similarity once for each time the score mentions it.
    """
    cursor = await connection.execute(
        best_statement(candidates, words=words, per_document=per_document), values
    )
    return [hit_from(row) for row in await cursor.fetchall()]


def hit_from(row: Sequence[Any]) -> Hit:
    """From a row of `best_statement`."""
    return Hit(
        doc_id=row[0],
        chunk_id=row[1],
        score=row[2],
        similarity=row[3],
        decay=row[4],
        age_seconds=row[5],
        half_life_seconds=row[6],
        text=row[7],
        meta=row[8],
        tags=row[9],
        ingested_at=row[10],
        words=row[11],
        source_ref=SourceRef(*row[12:]) if row[12] is not None else None,
    )


def exact(filters: Filters) -> str:
    """The candidates of a scan: everything that matches, and its cosine."""
    return f"""
        SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
               -(embedding <#> %(vector)s) AS similarity
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND {matches(filters)}
    """


def top(scored: str, columns: str = "*", *, per_document: bool = False) -> str:
    """The k best rows of a relation that has doc_id, chunk_id and score; the order of an answer."""
    if per_document:
        scored = f"""(
            SELECT DISTINCT ON (doc_id) *
              FROM {scored}
             ORDER BY doc_id, score DESC, chunk_id
        ) AS documents"""
    return f"""
            SELECT {columns}
              FROM {scored}
             ORDER BY score DESC, doc_id, chunk_id
             LIMIT %(k)s
    """


def best_statement(candidates: str, *, words: str = "NULL", per_document: bool = False) -> str:
    """The SQL of `best`; `words` is an expression over the chunk found."""
    return f"""
        WITH candidates AS (
            {candidates}
            OFFSET 0
        ),
        fading AS (
            SELECT doc_id, ordinal, chunk_id, ingested_at, similarity,
                   coalesce(half_life_seconds, %(half_life)s::float8) AS half_life
              FROM candidates
        ),
        scored AS (
            SELECT *,
                   indexd.score(similarity, ingested_at, half_life, %(at)s) AS score
              FROM fading
        ),
        best AS (
            {top("scored", per_document=per_document)}
        )
        SELECT best.doc_id,
               best.chunk_id,
               best.score,
               best.similarity,
               indexd.decay(best.ingested_at, best.half_life, %(at)s),
               greatest(date_part('epoch', %(at)s - best.ingested_at), 0),
               best.half_life,
               chunk.text,
               chunk.meta,
               chunk.tags,
               best.ingested_at,
               {words},
               document.source_ref_origin,
               document.source_ref_id,
               document.source_ref_offset,
               document.source_ref_trust_level,
               document.source_ref_injected_by
          FROM best
          JOIN indexd.chunks AS chunk
            ON chunk.namespace = %(namespace)s
           AND chunk.doc_id = best.doc_id
           AND chunk.ordinal = best.ordinal
          JOIN indexd.documents AS document
            ON document.namespace = %(namespace)s
           AND document.doc_id = best.doc_id
         ORDER BY best.score DESC, best.doc_id, best.chunk_id
    """
