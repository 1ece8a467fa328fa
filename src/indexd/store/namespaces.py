"""What a search must know of a namespace before it looks into it."""

import msgspec

from indexd.db.pool import Connection
from indexd.store import policies, rows
from indexd.store.indexes import index_name
from indexd.vectors import Model


class Facts(msgspec.Struct, frozen=True):
    """`half_life_seconds` is the policy's, `semantic` whether it has a section of that name;
    `indexed` says whether an HNSW index serves; the model is what made the vectors, as far as
    anyone said.
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


def facts_values(namespace: str, dimension: int) -> dict[str, str]:
    """What FACTS asks for."""
    return {
        "namespace": namespace,
        "index": f"indexd.{index_name(namespace, dimension)}",
    }


async def facts(connection: Connection, namespace: str, dimension: int) -> Facts | None:
    """Of a namespace that holds documents; `dimension` is that of the vector to be compared."""
    return await rows.first(
        connection,
        Facts,
        f"/* indexd:namespaces.facts */ {FACTS}",
        facts_values(namespace, dimension),
    )
