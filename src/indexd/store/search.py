"""Finding chunks: the k best by score = similarity x decay."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from indexd import vectors
from indexd.db import Connection
from indexd.store import attempts, hybrid, lexical
from indexd.store.attempts import Attempt
from indexd.store.filters import Filters, parameters
from indexd.store.hits import Hit, best, exact
from indexd.store.namespaces import Facts, facts
from indexd.store.probe_sweep import probe_and_sweep
from indexd.store.relevance import with_marks
from indexd.store.tuning import Tuning
from indexd.vectors import Embedding, Model

Mode = Literal["vector", "lexical", "hybrid"]


class Search(msgspec.Struct, frozen=True):
    """What is looked for; `vector` is there but in mode lexical, `text` but in mode vector.

    A vector that is None there is for the embedder to make of `text`, which `made` then says.
    `model` is what the vector was made by, as far as anyone said.
    """

    namespace: str
    mode: Mode
    k: int
    filters: Filters
    text: str
    vector: Embedding | None
    model: Model | None = None
    made: bool = False

    def agrees_with(self, space: Facts) -> bool:
        return self.model is None or self.model.agrees_with(space.model)


class Found(msgspec.Struct, frozen=True):
    """The answer, how many chunks were scored for it, and what was left out: index, sweep.

    `cosines` is for mode hybrid: of the hits that the vector found, by doc_id and chunk_id.
    `semantic` says whether the namespace's policy has a section of that name: whether exposures
    count there.
    """

    hits: list[Hit]
    scored: int
    degraded: list[str] = []
    cosines: dict[tuple[str, str], float] = {}
    semantic: bool = False


def attempt(search: Search, *, at: datetime, tuning: Tuning) -> Attempt | None:
    """How to try this search in one statement, where that may do."""
    if search.vector is None or search.mode != "vector":
        return None
    found = attempts.attempt(
        search.namespace, search.vector, k=search.k, filters=search.filters, at=at, tuning=tuning
    )
    return found if found and search.agrees_with(found.expected) else None


def proven(attempt: Attempt, rows: Sequence[tuple[Any, ...]]) -> Found | None:
    """What the attempt found, if that is the answer."""
    hits = attempts.proven(attempt, rows)
    if hits is None:
        return None
    return Found(hits, attempt.scored, attempt.reduced, semantic=attempt.expected.semantic)


async def search(connection: Connection, search: Search, *, at: datetime, tuning: Tuning) -> Found:
    """The k best of the namespace, highest score first; none where it does not exist.

    Runs in the caller's snapshot. Raises DimensionMismatch, or EmbedderUnavailable where the
    vector was made here; ModelMismatch.
    """
    if search.vector is None:
        hits = await lexical.by_words(
            connection, search.namespace, search.text, k=search.k, filters=search.filters, at=at
        )
        return Found(hits, len(hits))
    space = await facts(connection, search.namespace, search.vector.size)
    if space is None:
        return Found([], 0)
    if space.model and search.model and not search.agrees_with(space):
        raise vectors.other_model("query", space.namespace, space.model, search.model)
    if space.dimension != search.vector.size:
        if search.made:
            raise vectors.embedder_mismatch(space.namespace, space.dimension, search.vector.size)
        raise vectors.mismatch("query", space.dimension, search.vector.size)
    attempts.remember(space)
    found = await by_vector(
        connection,
        space,
        search.vector,
        k=hybrid.POOL if search.mode == "hybrid" else search.k,
        filters=search.filters,
        at=at,
        tuning=tuning,
    )
    if search.mode == "hybrid":
        hits = await hybrid.fused(
            connection, space, found.hits, search.text, k=search.k, filters=search.filters, at=at
        )
        cosines = {(hit.doc_id, hit.chunk_id): hit.similarity for hit in found.hits}
        found = Found(hits, found.scored, found.degraded, cosines)
    if space.semantic:
        marked = await with_marks(connection, space.namespace, found.hits)
        return msgspec.structs.replace(found, hits=marked, semantic=True)
    return found


async def by_vector(
    connection: Connection,
    space: Facts,
    vector: Embedding,
    *,
    k: int,
    filters: Filters,
    at: datetime,
    tuning: Tuning,
    per_document: bool = False,
) -> Found:
    """The k chunks of the highest cosine x decay, ties by doc_id, then chunk_id.

    With `per_document` the best chunk of each of the k best documents.

    Without an index the namespace is scanned, which is exact by definition; with one, probe and
    sweep finds them.
    """
    values = parameters(filters) | {
        "namespace": space.namespace,
        "vector": vector,
        "half_life": space.half_life_seconds,
        "k": k,
        "at": at,
    }
    if not space.indexed:
        found = await best(connection, exact(filters), values, per_document=per_document)
        return Found(found, space.chunks)
    keys = await probe_and_sweep(
        connection,
        space,
        vector,
        values,
        k=k,
        filters=filters,
        at=at,
        tuning=tuning,
        per_document=per_document,
    )
    if isinstance(keys, float):
        found = await best(connection, exact(filters), values, per_document=per_document)
        return Found(found, int(keys))
    chosen = keys.keys()
    found = await best(
        connection,
        _CHOSEN,
        values
        | {
            "chosen_doc_ids": [key.doc_id for key in chosen],
            "chosen_ordinals": [key.ordinal for key in chosen],
        },
    )
    return Found(found, keys.scored, [*tuning.reduced, *(["sweep"] if keys.cut else [])])


_CHOSEN = """
    SELECT chunks.doc_id, chunks.ordinal, chunk_id, ingested_at, half_life_seconds,
           -(embedding <#> %(vector)s) AS similarity
      FROM unnest(%(chosen_doc_ids)s::text[], %(chosen_ordinals)s::int[])
        AS chosen (doc_id, ordinal)
      JOIN indexd.chunks
        ON chunks.namespace = %(namespace)s
       AND chunks.doc_id = chosen.doc_id COLLATE "C"
       AND chunks.ordinal = chosen.ordinal
"""
