"""New vectors for the texts of a namespace: stored beside the ones in use, then put in place."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from indexd.db.pool import Connection
from indexd.errors import InvalidRequest, NotFound
from indexd.store import rows
from indexd.vectors import Embedding, Model

_DIGEST = "sha256(convert_to(chunks.text, 'UTF8'))"

_HAS_NEW_VECTOR = f"""EXISTS (
                SELECT
                  FROM indexd.reembedded
                 WHERE reembedded.namespace = %(namespace)s
                   AND reembedded.text_digest = {_DIGEST}
           )"""


class Extent(msgspec.Struct, frozen=True):
    """The number of different texts of a namespace, and of those that have their new vector.

    `dimension` is None where the namespace holds no vector. `fills` says that the vectors that are
    there come from the wanted model, so only the texts without a vector need one.
    """

    dimension: int | None
    model: Model | None
    texts: int
    done: int
    fills: bool


class Text(msgspec.Struct, frozen=True):
    """A chunk whose text has no vector of the new model yet."""

    doc_id: str
    ordinal: int
    text: str
    digest: bytes


class _Extent(msgspec.Struct, frozen=True):
    """`empty` is the number of chunks without a text; `fills` is that of Extent."""

    dimension: int | None
    embedding_model: str | None
    embedding_revision: str | None
    empty: int
    fills: bool
    texts: int
    done: int


DROP_OTHERS = """
    /* indexd:writing.reembed.drop_others */
    DELETE FROM indexd.reembedded
     WHERE namespace = %(namespace)s
       AND (embedding_model, embedding_revision)
           IS DISTINCT FROM (%(model)s::text, %(revision)s::text)
"""

EXTENT = f"""
    /* indexd:writing.reembed.extent */
    WITH space AS (
        SELECT dimension, embedding_model, embedding_revision,
               dimension IS NOT NULL
               AND (embedding_model, embedding_revision)
                   IS NOT DISTINCT FROM (%(model)s::text, %(revision)s::text)
               AND EXISTS (
                    SELECT 1
                      FROM indexd.chunks
                     WHERE chunks.namespace = %(namespace)s
                       AND embedding IS NULL
               ) AS fills
          FROM indexd.namespaces
         WHERE namespace = %(namespace)s
           AND documents > 0
    ),
    texts AS (
        SELECT count(*) FILTER (WHERE btrim(text) = '') AS empty,
               count(DISTINCT {_DIGEST}) AS texts,
               count(DISTINCT {_DIGEST}) FILTER (
                   WHERE {_HAS_NEW_VECTOR}
               ) AS done
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND (embedding IS NULL OR NOT (SELECT fills FROM space))
    )
    SELECT dimension, embedding_model, embedding_revision, fills, empty, texts, done
      FROM space
     CROSS JOIN texts
"""


async def begin(connection: Connection, namespace: str, model: Model) -> Extent:
    """Delete vectors that an earlier run made by another model, and say what is left to do.

    Atomic in the caller's transaction; locks no document and no namespace. Raises NotFound, and
    InvalidRequest for a namespace with chunks that have no text.
    """
    values = _model_values(namespace, model)
    await connection.execute(DROP_OTHERS, values)
    found = await rows.first(connection, _Extent, EXTENT, values)
    if found is None:
        raise NotFound(f"there is no namespace {namespace!r} with documents in it")
    if found.empty:
        raise InvalidRequest(
            f"namespace {namespace!r} holds {found.empty:,} chunks without a text, "
            "which only those who sent them can embed anew"
        )
    present = Model.named(found.embedding_model, found.embedding_revision)
    return Extent(found.dimension, present, found.texts, found.done, found.fills)


MISSING = f"""
    /* indexd:writing.reembed.missing */
    SELECT doc_id, ordinal, text, {_DIGEST} AS digest
      FROM indexd.chunks
     WHERE namespace = %(namespace)s
       AND (doc_id, ordinal) > (%(doc_id)s, %(ordinal)s)
       AND (embedding IS NULL OR NOT %(fills)s)
       AND NOT {_HAS_NEW_VECTOR}
     ORDER BY doc_id, ordinal
     LIMIT %(limit)s
"""


async def missing(
    connection: Connection, namespace: str, after: tuple[str, int], limit: int, *, fills: bool
) -> list[Text]:
    """The next chunks in key order whose text has no new vector; `after` is doc_id, ordinal.

    With `fills` only chunks without a vector are looked at.
    """
    doc_id, ordinal = after
    return await rows.every(
        connection,
        Text,
        MISSING,
        {
            "namespace": namespace,
            "doc_id": doc_id,
            "ordinal": ordinal,
            "limit": limit,
            "fills": fills,
        },
    )


KEEP = """
    /* indexd:writing.reembed.keep */
    INSERT INTO indexd.reembedded (
        namespace, text_digest, embedding, embedding_model, embedding_revision
    )
    SELECT %(namespace)s, made.*, %(model)s, %(revision)s
      FROM unnest(%(digests)s::bytea[], %(vectors)s::vector[]) AS made
    ON CONFLICT (namespace, text_digest) DO NOTHING
"""


async def keep(
    connection: Connection, namespace: str, model: Model, made: Mapping[bytes, Embedding]
) -> None:
    """Store new vectors, by the digest of their text, until they are put in place."""
    await connection.execute(
        KEEP,
        _model_values(namespace, model) | {"digests": list(made), "vectors": list(made.values())},
    )


PUT_IN_PLACE = f"""
    /* indexd:writing.reembed.put_in_place */
    UPDATE indexd.chunks
       SET embedding = reembedded.embedding
      FROM indexd.reembedded
     WHERE chunks.namespace = %(namespace)s
       AND reembedded.namespace = %(namespace)s
       AND reembedded.text_digest = {_DIGEST}
       AND (chunks.embedding IS NULL OR NOT %(fills)s)
"""

CHANGE_SPACE = """
    /* indexd:writing.reembed.change_space */
    UPDATE indexd.namespaces
       SET dimension          = %(dimension)s,
           embedding_model    = %(model)s,
           embedding_revision = %(revision)s,
           index_serves       = coalesce(index_serves AND dimension = %(dimension)s, false)
     WHERE namespace = %(namespace)s
"""

CLEAR = """
    /* indexd:writing.reembed.clear */
    DELETE FROM indexd.reembedded
     WHERE namespace = %(namespace)s
"""


async def put_in_place(
    connection: Connection, namespace: str, model: Model, dimension: int, *, fills: bool
) -> int:
    """Give all chunks of a namespace their new vectors; returns the number of chunks.

    With `fills` only those that have none get one, and the caller has looked that the namespace has
    this model and dimension.

    Atomic in the caller's transaction: a reader sees all old vectors, then all new ones. Locks: the
    caller has called `vector_space.shut_out_writers` before, and has looked in the same transaction
    that no text is without a new vector; then the rows of all chunks are locked. A deletion that
    holds a document and waits for the namespace makes PostgreSQL raise DeadlockDetected.
    """
    values = _model_values(namespace, model) | {"dimension": dimension, "fills": fills}
    changed = await connection.execute(PUT_IN_PLACE, values)
    await connection.execute(CHANGE_SPACE, values)
    await connection.execute(CLEAR, values)
    return changed.rowcount


def _model_values(namespace: str, model: Model) -> dict[str, Any]:
    return {"namespace": namespace, "model": model.name, "revision": model.revision}


def last_key(texts: Sequence[Text]) -> tuple[str, int]:
    """The key that the next call of `missing` begins after."""
    return texts[-1].doc_id, texts[-1].ordinal
