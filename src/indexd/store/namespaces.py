"""The facts about a namespace that decide how it is searched."""

from datetime import datetime
from typing import Any

import msgspec

from indexd.db.pool import Connection
from indexd.store import policies, rows
from indexd.store.indexes import index_name
from indexd.vectors import Model


class Facts(msgspec.Struct, frozen=True):
    """`half_life_seconds` is the policy's, `semantic` whether it has a section of that name.
    `indexed` says whether an HNSW index serves, `expired` whether a document is there that must
    not be answered any more. The model made the vectors; it is None where no
    client named it. `dimension` is None where no vector is stored, only texts.
    """

    namespace: str
    dimension: int | None
    chunks: int
    half_life_seconds: float | None
    indexed: bool
    expired: bool = False
    semantic: bool = False
    model_name: str | None = None
    model_revision: str | None = None

    @property
    def vectors_dimension(self) -> int:
        """The dimension, of a namespace that holds vectors."""
        assert self.dimension is not None  # noqa: S101 (searches of texts alone have other plans)
        return self.dimension

    @property
    def model(self) -> Model | None:
        return Model.named(self.model_name, self.model_revision)


FACTS = f"""SELECT namespaces.namespace,
                   dimension,
                   chunks,
                   policy.half_life_seconds,
                   EXISTS (
                    SELECT 1
                      FROM pg_index
                     WHERE indexrelid = to_regclass(%(index)s)
                       AND indisvalid
                   ) AS indexed,
                   EXISTS (
                    SELECT 1
                      FROM indexd.documents
                     WHERE documents.namespace = %(namespace)s
                       AND documents.expires_at <= %(unexpired_at)s
                   ) AS expired,
                   coalesce(policy.semantic, false) AS semantic,
                   embedding_model AS model_name,
                   embedding_revision AS model_revision
              FROM indexd.namespaces
              LEFT JOIN LATERAL (
                    {policies.holding("half_life_seconds, semantic IS NOT NULL AS semantic")}
                   ) AS policy
                ON true
             WHERE namespaces.namespace = %(namespace)s
               AND documents > 0"""


ANY_EXPIRED = """
    /* indexd:namespaces.any_expired */
    SELECT EXISTS (
            SELECT 1
              FROM indexd.documents
             WHERE namespace = %(namespace)s
               AND expires_at <= %(unexpired_at)s
           )
"""


async def any_expired(connection: Connection, namespace: str, unexpired_at: datetime) -> bool:
    """Whether a document is there that must not be answered any more."""
    values = {"namespace": namespace, "unexpired_at": unexpired_at}
    found: bool = await rows.value(connection, ANY_EXPIRED, values)
    return found


HOLDS_TEXTS_ALONE = """
    /* indexd:namespaces.holds_texts_alone */
    SELECT EXISTS (
            SELECT 1
              FROM indexd.namespaces
             WHERE namespace = %(namespace)s
               AND documents > 0
               AND dimension IS NULL
           )
"""


async def holds_texts_alone(connection: Connection, namespace: str) -> bool:
    """Whether the namespace holds documents, and no vector."""
    found: bool = await rows.value(connection, HOLDS_TEXTS_ALONE, {"namespace": namespace})
    return found


LOOK_UP = f"/* indexd:namespaces.facts */ {FACTS}"


def facts_values(namespace: str, dimension: int, unexpired_at: datetime) -> dict[str, Any]:
    """The values that FACTS names."""
    return {
        "namespace": namespace,
        "unexpired_at": unexpired_at,
        "index": f"indexd.{index_name(namespace, dimension)}",
    }


async def facts(
    connection: Connection, namespace: str, dimension: int, unexpired_at: datetime
) -> Facts | None:
    """Of a namespace that holds documents; `dimension` is that of the vector to be compared."""
    values = facts_values(namespace, dimension, unexpired_at)
    found = await rows.prepared(connection, Facts, LOOK_UP, values)
    return found[0] if found else None
