"""What a search must know of a namespace before it looks into it."""

import msgspec

from indexd.db import Connection
from indexd.store import policies
from indexd.store.indexes import index_name


class Facts(msgspec.Struct, frozen=True):
    """`half_life_seconds` is the policy's; `indexed` says whether an HNSW index serves."""

    namespace: str
    dimension: int
    chunks: int
    half_life_seconds: float | None
    indexed: bool


async def facts(connection: Connection, namespace: str, dimension: int) -> Facts | None:
    """Of a namespace that holds documents; `dimension` is that of the vector to be compared."""
    cursor = await connection.execute(
        """
        SELECT namespace,
               dimension,
               chunks,
               (
                SELECT half_life_seconds
                  FROM indexd.retention_policies AS policy
                 WHERE policy.namespace IN (%(namespace)s, %(defaults)s)
                 ORDER BY policy.namespace DESC
                 LIMIT 1
               ),
               EXISTS (
                SELECT
                  FROM pg_index
                 WHERE indexrelid = to_regclass(%(index)s)
                   AND indisvalid
               )
          FROM indexd.namespaces
         WHERE namespace = %(namespace)s
           AND documents > 0
        """,
        {
            "namespace": namespace,
            "defaults": policies.DEFAULTS,
            "index": f"indexd.{index_name(namespace, dimension)}",
        },
    )
    row = await cursor.fetchone()
    return Facts(*row) if row else None
