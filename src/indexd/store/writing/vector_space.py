"""What the vectors of a namespace have in common: their dimension, and the model they come from."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from indexd.db.pool import Connection
from indexd.errors import WritesPaused
from indexd.store.documents import Document
from indexd.vectors import Model


class Binding(msgspec.Struct, frozen=True):
    """What the vectors of a namespace have in common."""

    dimension: int
    model: Model | None

    def takes(self, document: Document) -> bool:
        return self.dimension == document.dimension and (
            self.model is None or self.model.agrees_with(document.model)
        )

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "dimension": self.dimension,
            "model": self.model and self.model.name,
            "revision": self.model and self.model.revision,
        }


IS_BOUND = """(
                   dimension = %(dimension)s
               AND CASE
                   WHEN %(model)s::text IS NULL
                   THEN documents > 0 OR embedding_model IS NULL
                   ELSE embedding_model = %(model)s
                    AND (%(revision)s::text IS NULL OR embedding_revision = %(revision)s)
                   END
               )"""
"""A namespace may be written to under a Binding; one without documents must have that very one."""

IS_OPEN = "(writes_paused_until IS NULL OR writes_paused_until <= %(at)s)"
"""No pause holds writers off."""


async def bind(
    connection: Connection, namespace: str, binding: Binding, *, at: datetime
) -> Binding:
    """What the namespace is bound to.

    One that is new or empty takes what is asked for, and one whose model nobody named yet takes
    the model. Raises WritesPaused.
    """
    parameters = {"namespace": namespace, "at": at, **binding.parameters}
    cursor = await connection.execute(
        """
        INSERT INTO indexd.namespaces (
            namespace, dimension, embedding_model, embedding_revision, created_at
        )
        VALUES (%(namespace)s, %(dimension)s, %(model)s, %(revision)s, %(at)s)
        ON CONFLICT (namespace) DO NOTHING
        """,
        parameters,
    )
    if cursor.rowcount:
        return binding
    cursor = await connection.execute(
        f"""
        SELECT dimension, embedding_model, embedding_revision, documents, {IS_OPEN}
          FROM indexd.namespaces
         WHERE namespace = %(namespace)s
        """,
        parameters,
    )
    row = await cursor.fetchone() or (0, None, None, 0, True)
    dimension, name, revision, documents, is_open = row
    if not is_open:
        raise WritesPaused(
            f"namespace {namespace!r} takes no writes while its vectors are made anew; "
            "try again shortly"
        )
    found = Binding(dimension, Model.named(name, revision))
    agrees = found.model is None or found.model.agrees_with(binding.model)
    if documents and not (found.dimension == binding.dimension and agrees):
        return found
    # It looks empty, or its model unnamed. Once no other writer holds it, see again, in a
    # statement of its own.
    await shut_out_writers(connection, namespace)
    await connection.execute(
        """
        UPDATE indexd.namespaces
           SET dimension          = %(dimension)s,
               embedding_model    = %(model)s,
               embedding_revision = %(revision)s
         WHERE namespace = %(namespace)s
           AND documents = 0
        """,
        parameters,
    )
    await connection.execute(
        """
        UPDATE indexd.namespaces
           SET embedding_model    = %(model)s,
               embedding_revision = %(revision)s
         WHERE namespace = %(namespace)s
           AND dimension = %(dimension)s
           AND %(model)s::text IS NOT NULL
           AND (embedding_model IS NULL OR embedding_model = %(model)s)
           AND embedding_revision IS NULL
        """,
        parameters,
    )
    return binding


async def shut_out_writers(connection: Connection, namespace: str) -> None:
    """Until the end of the transaction; waits for those that are at it."""
    await connection.execute(
        "SELECT FROM indexd.namespaces WHERE namespace = %(namespace)s FOR UPDATE",
        {"namespace": namespace},
    )


async def pause(connection: Connection, namespace: str, *, until: datetime | None) -> None:
    """Refuse upserts before `until`; None ends a pause.

    Once this is committed, no upsert is under way that began before.
    """
    async with connection.transaction():
        await shut_out_writers(connection, namespace)
        await connection.execute(
            """
            UPDATE indexd.namespaces
               SET writes_paused_until = %(until)s
             WHERE namespace = %(namespace)s
            """,
            {"namespace": namespace, "until": until},
        )


async def bound(connection: Connection, namespaces: Sequence[str]) -> dict[str, Binding]:
    """Of each namespace that holds documents."""
    cursor = await connection.execute(
        """
        SELECT namespace, dimension, embedding_model, embedding_revision
          FROM indexd.namespaces
         WHERE namespace = ANY(%(namespaces)s)
           AND documents > 0
        """,
        {"namespaces": list(namespaces)},
    )
    return {
        namespace: Binding(dimension, Model.named(name, revision))
        for namespace, dimension, name, revision in await cursor.fetchall()
    }
