"""The retention policies in force, as the database has them."""

from collections.abc import Sequence
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from indexd.db.pool import Connection
from indexd.policy import Policies, Policy, Semantic

DEFAULTS = ""
"""The name of the row that holds for every namespace without one of its own."""

_FIELDS = Policy.__struct_fields__

COLUMNS = ", ".join(_FIELDS)


def holding(columns: str = COLUMNS) -> str:
    """SQL: the one row that holds in %(namespace)s, its own or else the defaults."""
    return f"""
        SELECT {columns}
          FROM indexd.retention_policies
         WHERE retention_policies.namespace IN (%(namespace)s, '{DEFAULTS}')
         ORDER BY retention_policies.namespace DESC
         LIMIT 1
    """


def policy_from(row: Sequence[Any]) -> Policy:
    """From the values of COLUMNS; none at all where no policy was ever loaded."""
    if all(value is None for value in row):
        return Policy()
    found: dict[str, Any] = dict(zip(_FIELDS, row, strict=True))
    return Policy(**found | {"semantic": msgspec.convert(found["semantic"], Semantic | None)})


async def apply(connection: Connection, policies: Policies) -> bool:
    """Put these in force instead of all there were; answers whether that changed anything.

    Forgets nothing: retention acts in upserts only.
    """
    cursor = await connection.execute(
        """
        SELECT policy_hash, source
          FROM indexd.retention_policies
         WHERE namespace = %(defaults)s
        """,
        {"defaults": DEFAULTS},
    )
    if await cursor.fetchone() == (policies.hash, policies.source):
        return False
    rows = {DEFAULTS: policies.defaults, **policies.namespaces}
    # Two servers that start at once with two files: one after the other, whole.
    await connection.execute("LOCK TABLE indexd.retention_policies IN SHARE ROW EXCLUSIVE MODE")
    await connection.execute("DELETE FROM indexd.retention_policies")
    await connection.execute(
        """
        INSERT INTO indexd.retention_policies (
            namespace, half_life_seconds, max_items, max_age_seconds, purge_strategy,
            grace_seconds, semantic, policy_hash, source
        )
        SELECT sent.*, %(hash)s, %(source)s
          FROM unnest(
                %(namespace)s::text[], %(half_life_seconds)s::float8[], %(max_items)s::bigint[],
                %(max_age_seconds)s::float8[], %(purge_strategy)s::text[],
                %(grace_seconds)s::float8[], %(semantic)s::jsonb[]
               ) AS sent
        """,
        {
            "namespace": list(rows),
            "hash": policies.hash,
            "source": policies.source,
            **{field: [getattr(row, field) for row in rows.values()] for field in _FIELDS},
            "semantic": [row.semantic and Jsonb(row.semantic) for row in rows.values()],
        },
    )
    return True


async def in_force(connection: Connection) -> tuple[Policies, str]:
    """All policies, and their hash; none and an empty hash before the first start."""
    cursor = await connection.execute(f"""
        SELECT namespace, {COLUMNS}, policy_hash, source
          FROM indexd.retention_policies
         ORDER BY namespace
    """)
    rows = await cursor.fetchall()
    found = {namespace: policy_from(fields) for namespace, *fields, _, _ in rows}
    policies = Policies(
        defaults=found.pop(DEFAULTS, Policy()),
        namespaces=found,
        source=rows[0][-1] if rows else "",
    )
    return policies, rows[0][-2] if rows else ""


async def of(connection: Connection, namespace: str) -> Policy:
    """What holds in this namespace."""
    cursor = await connection.execute(holding(), {"namespace": namespace})
    row = await cursor.fetchone()
    return policy_from(row) if row else Policy()
