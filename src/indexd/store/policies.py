"""The retention policies in force, as the database has them."""

from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from indexd.db.pool import Connection
from indexd.policy import Policies, Policy, Semantic, Strategy
from indexd.store import rows

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


class PolicyRow(msgspec.Struct, frozen=True):
    """A row with the columns of COLUMNS; all are NULL where no policy was ever loaded."""

    half_life_seconds: float | None
    max_items: int | None
    max_age_seconds: float | None
    purge_strategy: Strategy | None
    grace_seconds: float | None
    semantic: dict[str, Any] | None

    def policy(self) -> Policy:
        given = {name: getattr(self, name) for name in _FIELDS}
        if all(value is None for value in given.values()):
            return Policy()
        return Policy(**given | {"semantic": msgspec.convert(self.semantic, Semantic | None)})


class _Loaded(PolicyRow, frozen=True):
    namespace: str
    policy_hash: str
    source: str


class _Source(msgspec.Struct, frozen=True):
    policy_hash: str
    source: str


SOURCE = """
    /* indexd:policies.source */
    SELECT policy_hash, source
      FROM indexd.retention_policies
     WHERE namespace = %(defaults)s
"""

LOCK = """
    /* indexd:policies.lock */
    LOCK TABLE indexd.retention_policies IN SHARE ROW EXCLUSIVE MODE
"""

DELETE = """
    /* indexd:policies.delete */
    DELETE FROM indexd.retention_policies
"""

INSERT = """
    /* indexd:policies.insert */
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
"""


async def apply(connection: Connection, policies: Policies) -> bool:
    """Replace all policies in force by these; returns whether that changed anything.

    Atomic: in the caller's transaction, so that a reader sees all old policies or all new ones.
    Locks: the table against other writers, unless nothing changes; two servers that start at the
    same time with different files replace it one after the other. Deletes no document: retention
    removes documents in upserts only. It raises no error of its own.
    """
    present = await rows.first(connection, _Source, SOURCE, {"defaults": DEFAULTS})
    if present == _Source(policies.hash, policies.source):
        return False
    sent = {DEFAULTS: policies.defaults, **policies.namespaces}
    await connection.execute(LOCK)
    await connection.execute(DELETE)
    await connection.execute(
        INSERT,
        {
            "namespace": list(sent),
            "hash": policies.hash,
            "source": policies.source,
            **{field: [getattr(one, field) for one in sent.values()] for field in _FIELDS},
            "semantic": [one.semantic and Jsonb(one.semantic) for one in sent.values()],
        },
    )
    return True


IN_FORCE = f"""
    /* indexd:policies.in_force */
    SELECT namespace, {COLUMNS}, policy_hash, source
      FROM indexd.retention_policies
     ORDER BY namespace
"""


async def in_force(connection: Connection) -> tuple[Policies, str]:
    """All policies, and their hash; none and an empty hash before the first start."""
    loaded = await rows.every(connection, _Loaded, IN_FORCE, {})
    found = {one.namespace: one.policy() for one in loaded}
    defaults = found.pop(DEFAULTS, Policy())
    # Every row has the hash and the source of the file that all were loaded from.
    for one in loaded:
        return Policies(defaults, found, one.source), one.policy_hash
    return Policies(defaults, found, ""), ""


OF = f"""
    /* indexd:policies.of */
    {holding()}
"""


async def of(connection: Connection, namespace: str) -> Policy:
    """The policy that holds in this namespace."""
    found = await rows.first(connection, PolicyRow, OF, {"namespace": namespace})
    return found.policy() if found else Policy()
