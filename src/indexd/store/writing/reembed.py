"""Other vectors for the texts of a namespace: made beside the ones in use, then put in place."""

from collections.abc import Sequence
from typing import Any

import msgspec

from indexd.db.pool import Connection
from indexd.errors import InvalidRequest, NotFound
from indexd.vectors import Embedding, Model

_DIGEST = "sha256(convert_to(chunks.text, 'UTF8'))"

_MADE = f"""
    SELECT
      FROM indexd.reembedded
     WHERE reembedded.namespace = %(namespace)s
       AND reembedded.text_digest = {_DIGEST}
"""


class Extent(msgspec.Struct, frozen=True):
    """How many different texts there are to embed, and how many have their vector already."""

    dimension: int
    model: Model | None
    texts: int
    done: int


class Text(msgspec.Struct, frozen=True):
    """A chunk whose text has no vector of the new model yet."""

    doc_id: str
    ordinal: int
    text: str
    digest: bytes


async def begin(connection: Connection, namespace: str, model: Model) -> Extent:
    """Drop what was begun with another model, and say what is left to do.

    Raises NotFound, and InvalidRequest for a namespace with chunks that have no text.
    """
    await connection.execute(
        """
        DELETE FROM indexd.reembedded
         WHERE namespace = %(namespace)s
           AND (embedding_model, embedding_revision)
               IS DISTINCT FROM (%(model)s::text, %(revision)s::text)
        """,
        _values(namespace, model),
    )
    cursor = await connection.execute(
        f"""
        WITH texts AS (
            SELECT count(*) FILTER (WHERE btrim(text) = '') AS empty,
                   count(DISTINCT {_DIGEST}) AS different,
                   count(DISTINCT {_DIGEST}) FILTER (WHERE EXISTS ({_MADE})) AS done
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
        )
        SELECT dimension, embedding_model, embedding_revision, empty, different, done
          FROM indexd.namespaces
         CROSS JOIN texts
         WHERE namespace = %(namespace)s
           AND documents > 0
        """,
        _values(namespace, model),
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"there is no namespace {namespace!r} with documents in it")
    dimension, name, revision, empty, texts, done = row
    if empty:
        raise InvalidRequest(
            f"namespace {namespace!r} holds {empty:,} chunks without a text, "
            "which only those who sent them can embed anew"
        )
    return Extent(dimension, Model.named(name, revision), texts, done)


async def missing(
    connection: Connection, namespace: str, after: tuple[str, int], limit: int
) -> list[Text]:
    """The next chunks in key order whose text has no new vector; `after` is doc_id, ordinal."""
    cursor = await connection.execute(
        f"""
        SELECT doc_id, ordinal, text, {_DIGEST}
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND (doc_id, ordinal) > (%(doc_id)s, %(ordinal)s)
           AND NOT EXISTS ({_MADE})
         ORDER BY doc_id, ordinal
         LIMIT %(limit)s
        """,
        {"namespace": namespace, "doc_id": after[0], "ordinal": after[1], "limit": limit},
    )
    return [Text(*row) for row in await cursor.fetchall()]


async def keep(
    connection: Connection, namespace: str, model: Model, made: dict[bytes, Embedding]
) -> None:
    """Keep new vectors, by the digest of their text, until they are put in place."""
    await connection.execute(
        """
        INSERT INTO indexd.reembedded (
            namespace, text_digest, embedding, embedding_model, embedding_revision
        )
        SELECT %(namespace)s, made.*, %(model)s, %(revision)s
          FROM unnest(%(digests)s::bytea[], %(vectors)s::vector[]) AS made
        ON CONFLICT (namespace, text_digest) DO NOTHING
        """,
        _values(namespace, model) | {"digests": list(made), "vectors": list(made.values())},
    )


async def put_in_place(connection: Connection, namespace: str, model: Model, dimension: int) -> int:
    """Give all chunks their new vectors at once, and say how many.

    The caller shut out writers and saw to it that nothing is missing. Readers see all old, then
    all new.
    """
    values = _values(namespace, model) | {"dimension": dimension}
    cursor = await connection.execute(
        f"""
        UPDATE indexd.chunks
           SET embedding = reembedded.embedding
          FROM indexd.reembedded
         WHERE chunks.namespace = %(namespace)s
           AND reembedded.namespace = %(namespace)s
           AND reembedded.text_digest = {_DIGEST}
        """,
        values,
    )
    await connection.execute(
        """
        UPDATE indexd.namespaces
           SET dimension          = %(dimension)s,
               embedding_model    = %(model)s,
               embedding_revision = %(revision)s
         WHERE namespace = %(namespace)s
        """,
        values,
    )
    await connection.execute(
        "DELETE FROM indexd.reembedded WHERE namespace = %(namespace)s", values
    )
    return cursor.rowcount


def _values(namespace: str, model: Model) -> dict[str, Any]:
    return {"namespace": namespace, "model": model.name, "revision": model.revision}


def last_key(texts: Sequence[Text]) -> tuple[str, int]:
    """Where the next `missing` goes on."""
    return texts[-1].doc_id, texts[-1].ordinal
