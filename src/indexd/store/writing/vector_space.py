"""The vector space of a namespace: the dimension of its vectors, and the model that made them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from indexd.db.pool import Connection
from indexd.errors import WritesPaused
from indexd.store import rows
from indexd.store.documents import Document
from indexd.vectors import Model


class VectorSpace(msgspec.Struct, frozen=True):
    """What all vectors of a namespace have in common; `model` None where nobody named it.

    `dimension` is None, and so is the model, where the namespace holds texts without vectors alone.
    """

    dimension: int | None
    model: Model | None

    def accepts(self, document: Document) -> bool:
        """Whether the document's vectors, if any, can be compared with those of this space."""
        return document.dimension is None or (
            self.dimension == document.dimension
            and (self.model is None or self.model.agrees_with(document.model))
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """The values that the statements name."""
        return {
            "dimension": self.dimension,
            "model": self.model and self.model.name,
            "revision": self.model and self.model.revision,
        }


HAS_SPACE = """CASE
               WHEN %(dimension)s::int IS NULL
               THEN documents > 0 OR dimension IS NULL
               ELSE dimension = %(dimension)s
                AND CASE
                       WHEN %(model)s::text IS NULL
                       THEN documents > 0 OR embedding_model IS NULL
                       ELSE embedding_model = %(model)s
                        AND (%(revision)s::text IS NULL OR embedding_revision = %(revision)s)
                    END
           END"""
"""SQL: documents of a VectorSpace may be written to the namespace; one without documents must have
that very space.
"""

IS_OPEN = "(writes_paused_until IS NULL OR writes_paused_until <= %(at)s)"
"""SQL: the namespace's writes are not paused."""


class _SpaceRow(msgspec.Struct, frozen=True):
    namespace: str
    dimension: int | None
    embedding_model: str | None
    embedding_revision: str | None

    @property
    def space(self) -> VectorSpace:
        return VectorSpace(
            self.dimension, Model.named(self.embedding_model, self.embedding_revision)
        )


class _NamespaceRow(_SpaceRow, frozen=True):
    documents: int
    is_open: bool


CREATE = """
    /* indexd:writing.vector_space.create */
    INSERT INTO indexd.namespaces (
        namespace, dimension, embedding_model, embedding_revision, created_at
    )
    VALUES (%(namespace)s, %(dimension)s, %(model)s, %(revision)s, %(at)s)
    ON CONFLICT (namespace) DO NOTHING
"""

LOOK = f"""
    /* indexd:writing.vector_space.look */
    SELECT namespace, dimension, embedding_model, embedding_revision, documents,
           {IS_OPEN} AS is_open
      FROM indexd.namespaces
     WHERE namespace = %(namespace)s
"""

CHANGE_EMPTY = """
    /* indexd:writing.vector_space.change_empty */
    UPDATE indexd.namespaces
       SET dimension          = %(dimension)s,
           embedding_model    = %(model)s,
           embedding_revision = %(revision)s,
           index_serves       = coalesce(index_serves AND dimension = %(dimension)s, false)
     WHERE namespace = %(namespace)s
       AND (documents = 0 OR dimension IS NULL)
"""

NAME_MODEL = """
    /* indexd:writing.vector_space.name_model */
    UPDATE indexd.namespaces
       SET embedding_model    = %(model)s,
           embedding_revision = %(revision)s
     WHERE namespace = %(namespace)s
       AND dimension = %(dimension)s
       AND %(model)s::text IS NOT NULL
       AND (embedding_model IS NULL OR embedding_model = %(model)s)
       AND embedding_revision IS NULL
"""


async def settle(
    connection: Connection, namespace: str, wanted: VectorSpace, *, at: datetime
) -> VectorSpace:
    """The vector space of a namespace, which becomes the one that is wanted where it may.

    A namespace that is new, empty or without vectors takes the wanted space, and one whose model
    nobody named yet takes the wanted model. Both lock the namespace's row, until the end of the
    transaction, against all other writers. A namespace that holds documents of another space keeps
    it, and nothing is locked. Raises WritesPaused.
    """
    parameters = {"namespace": namespace, "at": at, **wanted.parameters}
    created = await connection.execute(CREATE, parameters)
    if created.rowcount:
        return wanted
    row = await rows.first(connection, _NamespaceRow, LOOK, parameters)
    if row is not None:
        if not row.is_open:
            raise WritesPaused(
                f"namespace {namespace!r} takes no writes while its vectors are made anew; "
                "try again shortly"
            )
        present = row.space
        agrees = present.model is None or present.model.agrees_with(wanted.model)
        same = present.dimension == wanted.dimension and agrees
        if row.documents and present.dimension is not None and not same:
            return present
    # The namespace looks empty or without vectors, or its model unnamed. Another writer may be
    # changing that: lock it and look again, in statements of their own.
    await shut_out_writers(connection, namespace)
    await connection.execute(CHANGE_EMPTY, parameters)
    await connection.execute(NAME_MODEL, parameters)
    return wanted


SHUT_OUT_WRITERS = """
    /* indexd:writing.vector_space.shut_out_writers */
    SELECT
      FROM indexd.namespaces
     WHERE namespace = %(namespace)s
       FOR UPDATE
"""


async def shut_out_writers(connection: Connection, namespace: str) -> None:
    """Lock the namespace's row against all writers, until the end of the transaction.

    Waits until those that are writing have ended their transactions.
    """
    await connection.execute(SHUT_OUT_WRITERS, {"namespace": namespace})


PAUSE = """
    /* indexd:writing.vector_space.pause */
    UPDATE indexd.namespaces
       SET writes_paused_until = %(until)s
     WHERE namespace = %(namespace)s
"""


async def pause(connection: Connection, namespace: str, *, until: datetime | None) -> None:
    """Refuse upserts before `until`; None ends a pause.

    Once this is committed, no upsert is under way that began before.
    """
    async with connection.transaction():
        await shut_out_writers(connection, namespace)
        await connection.execute(PAUSE, {"namespace": namespace, "until": until})


SPACES = """
    /* indexd:writing.vector_space.spaces */
    SELECT namespace, dimension, embedding_model, embedding_revision
      FROM indexd.namespaces
     WHERE namespace = ANY(%(namespaces)s)
       AND documents > 0
       AND dimension IS NOT NULL
"""


async def vector_spaces(
    connection: Connection, namespaces: Sequence[str]
) -> dict[str, VectorSpace]:
    """The vector space of each of the namespaces that has one."""
    found = await rows.every(connection, _SpaceRow, SPACES, {"namespaces": list(namespaces)})
    return {one.namespace: one.space for one in found}
