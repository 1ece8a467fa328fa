"""The facts about a namespace that decide how it is searched."""

import msgspec

from indexd.db.pool import Connection
from indexd.store import policies, rows
from indexd.store.indexes import index_name
from indexd.vectors import Model


class Facts(msgspec.Struct, frozen=True):
    """`half_life_seconds` is the policy's, `semantic` whether it has a section of that name.
    `indexed` says whether an HNSW index serves. The model made the vectors; it is None where no
    client named it.
    """

    namespace: str
    dimension: int
    chunks: int
    half_life_seconds: float | None
    indexed: bool
    semantic: bool = False
    model_name: str | None = None
    model_revision: str | None = None

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


LOOK_UP = f"/* indexd:namespaces.facts */ {FACTS}"


def facts_values(namespace: str, dimension: int) -> dict[str, str]:
    """The values that FACTS names."""
    return {
        "namespace": namespace,
        "index": f"indexd.{index_name(namespace, dimension)}",
    }


async def facts(connection: Connection, namespace: str, dimension: int) -> Facts | None:
    """Of a namespace that holds documents; `dimension` is that of the vector to be compared."""
    found = await rows.prepared(connection, Facts, LOOK_UP, facts_values(namespace, dimension))
    return found[0] if found else None
