"""Dry runs of forget: what one found is kept as a plan, to be carried out as it was seen."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
from psycopg.types.json import Jsonb

from indexd.db.pool import Connection
from indexd.errors import PlanDrifted, PlanNotFound
from indexd.store import rows
from indexd.store.forgetting import deletion
from indexd.store.forgetting.deletion import Cause
from indexd.store.forgetting.forget import (
    LISTED,
    Condition,
    ForgetEvent,
    Forgotten,
    Named,
    condemned,
    condition_values,
    first_named,
    reached,
)

LISTED_DRIFT = 100
"""Documents that the error PlanDrifted names."""

KEPT_PLANS = 8
"""Plans kept of one namespace, and as many of all namespaces at once; a newer one drops older."""

KEPT_DOCUMENTS = 200_000
"""Documents in all the plans that are kept beside the newest: about 50 MB."""

BATCH_DOCUMENTS = 10_000
"""Documents of an expired plan that are deleted in one transaction: 0.4 s on busy cores."""


class Plan(msgspec.Struct, frozen=True):
    """What a forget with the same condition would delete at this moment."""

    plan_id: UUID
    expires_at: datetime
    count: int
    documents: list[Named]


INSERT = """
    /* indexd:forgetting.plans.insert */
    INSERT INTO indexd.forget_plans (namespace, plan_id, filter, created_at, expires_at)
    VALUES (%(namespace)s, %(plan_id)s, %(filter)s, %(at)s, %(expires_at)s)
"""


def insert_documents(condition: Condition) -> str:
    """SQL: keep what a condition is about in one namespace."""
    return f"""
    /* indexd:forgetting.plans.insert_documents */
    INSERT INTO indexd.forget_plan_documents (
        namespace, plan_id, doc_id, ingested_at, digest, version
    )
    SELECT %(namespace)s, %(plan_id)s, doc_id, ingested_at, digest, version
      FROM ({condemned(condition)}) AS condemned
"""


FIRST_DOCUMENTS = """
    /* indexd:forgetting.plans.first_documents */
    SELECT doc_id, namespace, ingested_at
      FROM indexd.forget_plan_documents
     WHERE namespace = %(namespace)s
       AND plan_id = %(plan_id)s
     ORDER BY doc_id
     LIMIT %(listed)s
"""


async def make(
    connection: Connection, condition: Condition, *, at: datetime, lifetime: timedelta
) -> Plan:
    """Find what a condition condemns and keep it as a plan; changes and locks no document.

    Atomic: in the caller's transaction. Plans that expired are deleted, and so are the oldest of
    the same namespace beyond KEPT_PLANS and KEPT_DOCUMENTS: carrying one of them out raises
    PlanNotFound.
    """
    plan_id, expires_at = uuid4(), at + lifetime
    await connection.execute(
        INSERT,
        {
            "namespace": condition.namespace or "",
            "plan_id": plan_id,
            "filter": Jsonb(condition.logged()),
            "at": at,
            "expires_at": expires_at,
        },
    )
    count = 0
    documents: list[Named] = []
    for namespace in await reached(connection, condition):
        cursor = await connection.execute(
            insert_documents(condition),
            condition_values(condition, namespace) | {"plan_id": plan_id},
        )
        count += cursor.rowcount
        if len(documents) < LISTED and cursor.rowcount:
            documents += await rows.every(
                connection,
                Named,
                FIRST_DOCUMENTS,
                {"namespace": namespace, "plan_id": plan_id, "listed": LISTED},
            )
    await _drop_superseded(connection, condition.namespace or "", plan_id, at)
    return Plan(plan_id, expires_at, count, first_named(documents))


NAMESPACES = """
    /* indexd:forgetting.plans.namespaces */
    SELECT DISTINCT namespace
      FROM indexd.forget_plan_documents
     WHERE plan_id = %(plan_id)s
     ORDER BY namespace
"""


async def carry_out(
    connection: Connection,
    plan_id: UUID,
    *,
    reason: str,
    actor: str,
    at: datetime,
    namespaces: Collection[str] | None = None,
) -> Forgotten:
    """Delete exactly the planned documents, each in the version that the dry run saw; once.

    Atomic: in the caller's transaction, over all namespaces of the plan, and the plan itself is
    deleted last. Locks: the plan's row; then the namespaces by name, and in each its row where the
    policy has max_items, the rows of the documents by doc_id, and its row for the counters.

    Raises PlanNotFound where the plan is unknown, has expired, was carried out already, or is not
    of one of these `namespaces` (None is all). Raises PlanDrifted where a planned document changed
    or left since the dry run. The caller's transaction must end with the error: documents of
    earlier namespaces are deleted already.
    """
    condition = await _claim(connection, plan_id, at)
    if namespaces is not None and condition.get("namespace") not in namespaces:
        raise _unknown(plan_id)
    event = ForgetEvent(Cause("manual", reason, actor, at, filter=condition))
    drift: list[dict[str, str]] = []
    drifted = 0
    for namespace in await rows.column(connection, NAMESPACES, {"plan_id": plan_id}):
        await deletion.hold(connection, namespace)
        locked = await _lock_planned(connection, namespace, plan_id)
        changed = [one.doc_id for one in locked if not one.unchanged]
        gone = await _gone(connection, namespace, plan_id, {one.doc_id for one in locked})
        drifted += len(changed) + len(gone)
        drift += [
            {"doc_id": doc_id, "namespace": namespace, "drift": what}
            for what, doc_ids in (("changed", changed), ("gone", gone))
            for doc_id in doc_ids[:LISTED_DRIFT]
        ]
        if not drifted:
            await event.remove(
                connection, namespace, {one.doc_id: one.ingested_at for one in locked}
            )
    if drifted:
        raise PlanDrifted(
            f"{drifted} of the planned documents changed or left since the dry run",
            hint="make a new dry run",
            details={"drifted": drifted, "documents": drift[:LISTED_DRIFT]},
        )
    await _drop(connection, [plan_id])
    return event.forgotten


CLAIM = """
    /* indexd:forgetting.plans.claim */
    SELECT filter
      FROM indexd.forget_plans
     WHERE plan_id = %(plan_id)s
       AND expires_at > %(at)s
       FOR UPDATE
"""


async def _claim(connection: Connection, plan_id: UUID, at: datetime) -> dict[str, Any]:
    """Lock the plan, so that no other request carries it out; returns its condition."""
    condition: dict[str, Any] | None = await rows.value(
        connection, CLAIM, {"plan_id": plan_id, "at": at}
    )
    if condition is None:
        raise _unknown(plan_id)
    return condition


class _Planned(msgspec.Struct, frozen=True):
    doc_id: str
    ingested_at: datetime
    unchanged: bool


LOCK = """
    /* indexd:forgetting.plans.lock */
    SELECT planned.doc_id,
           planned.ingested_at,
           document.digest = planned.digest
           AND document.ingested_at = planned.ingested_at
           AND document.version = coalesce(planned.version, document.version) AS unchanged
      FROM indexd.forget_plan_documents AS planned
      JOIN indexd.documents AS document
        ON document.namespace = %(namespace)s
       AND document.doc_id = planned.doc_id
     WHERE planned.namespace = %(namespace)s
       AND planned.plan_id = %(plan_id)s
     ORDER BY planned.doc_id
       FOR UPDATE OF document
"""


async def _lock_planned(connection: Connection, namespace: str, plan_id: UUID) -> list[_Planned]:
    """Lock those of the planned documents that still exist."""
    return await rows.every(
        connection, _Planned, LOCK, {"namespace": namespace, "plan_id": plan_id}
    )


DOC_IDS = """
    /* indexd:forgetting.plans.doc_ids */
    SELECT doc_id
      FROM indexd.forget_plan_documents
     WHERE namespace = %(namespace)s
       AND plan_id = %(plan_id)s
     ORDER BY doc_id
"""


async def _gone(
    connection: Connection, namespace: str, plan_id: UUID, existing: set[str]
) -> list[str]:
    """The planned documents that do not exist any more."""
    planned = await rows.column(connection, DOC_IDS, {"namespace": namespace, "plan_id": plan_id})
    return [doc_id for doc_id in planned if doc_id not in existing]


DROP_DOCUMENTS = """
    /* indexd:forgetting.plans.drop_documents */
    DELETE FROM indexd.forget_plan_documents
     WHERE plan_id = ANY(%(plan_ids)s)
"""

DROP = """
    /* indexd:forgetting.plans.drop */
    DELETE FROM indexd.forget_plans
     WHERE plan_id = ANY(%(plan_ids)s)
"""


async def _drop(connection: Connection, plan_ids: list[UUID]) -> None:
    for statement in (DROP_DOCUMENTS, DROP):
        await connection.execute(statement, {"plan_ids": plan_ids})


SUPERSEDED = """
    /* indexd:forgetting.plans.superseded */
    WITH sized AS (
        -- Plans of the namespace, newest first: expired ones apart from those that can be carried
        -- out. `documents` is the running total; the newest plan does not count, however large.
        SELECT plan_id,
               expires_at,
               row_number() OVER age AS place,
               sum(CASE WHEN plan_id = %(newest)s THEN 0 ELSE documents END) OVER age
                   AS documents
          FROM indexd.forget_plans
         CROSS JOIN LATERAL (
                SELECT count(*) AS documents
                  FROM indexd.forget_plan_documents
                 WHERE forget_plan_documents.plan_id = forget_plans.plan_id
               ) AS size
         WHERE namespace = %(namespace)s
        WINDOW age AS (
            PARTITION BY expires_at > %(at)s
            ORDER BY plan_id = %(newest)s DESC, created_at DESC, plan_id
        )
    )
    SELECT plan_id
      FROM indexd.forget_plans
     WHERE plan_id <> %(newest)s
       AND (
            expires_at <= %(at)s
            OR plan_id IN (
                SELECT plan_id
                  FROM sized
                 WHERE place > %(kept_plans)s
                    OR documents > %(kept_documents)s
               )
           )
     ORDER BY plan_id
       -- A plan that is being carried out at this moment stays.
       FOR UPDATE SKIP LOCKED
"""


async def _drop_superseded(
    connection: Connection, namespace: str, newest: UUID, at: datetime
) -> None:
    """Delete plans that expired, and the older ones of the namespace that are beyond the limits."""
    superseded = await rows.column(
        connection,
        SUPERSEDED,
        {
            "namespace": namespace,
            "newest": newest,
            "at": at,
            "kept_plans": KEPT_PLANS,
            "kept_documents": KEPT_DOCUMENTS,
        },
    )
    if superseded:
        await _drop(connection, superseded)


async def drop_expired(connection: Connection, *, at: datetime) -> int:
    """Delete the plans that expired, in batches; returns the number of plans.

    The connection is in autocommit: each batch is a transaction. The first batch of a plan sets its
    time of expiry back, so that a server whose clock is behind cannot carry out what is left.
    """
    dropped = 0
    while (done := await _drop_batch(connection, at)) is not None:
        dropped += done
    return dropped


NEXT_EXPIRED = """
    /* indexd:forgetting.plans.next_expired */
    SELECT plan_id
      FROM indexd.forget_plans
     WHERE expires_at <= %(at)s
     LIMIT 1
       FOR UPDATE SKIP LOCKED
"""

EXPIRE = """
    /* indexd:forgetting.plans.expire */
    UPDATE indexd.forget_plans
       SET expires_at = created_at
     WHERE plan_id = %(plan_id)s
       AND expires_at > created_at
"""

DROP_BATCH = """
    /* indexd:forgetting.plans.drop_batch */
    DELETE FROM indexd.forget_plan_documents
     WHERE plan_id = %(plan_id)s
       AND (namespace, doc_id) IN (
            SELECT namespace, doc_id
              FROM indexd.forget_plan_documents
             WHERE plan_id = %(plan_id)s
             LIMIT %(limit)s
           )
"""


async def _drop_batch(connection: Connection, at: datetime) -> bool | None:
    """Whether that was the last batch of a plan; None if none has expired."""
    async with connection.transaction():
        plan_id = await rows.value(connection, NEXT_EXPIRED, {"at": at})
        if plan_id is None:
            return None
        await connection.execute(EXPIRE, {"plan_id": plan_id})
        cursor = await connection.execute(
            DROP_BATCH, {"plan_id": plan_id, "limit": BATCH_DOCUMENTS}
        )
        if cursor.rowcount == BATCH_DOCUMENTS:
            return False
        await connection.execute(DROP, {"plan_ids": [plan_id]})
        return True


def _unknown(plan_id: UUID) -> PlanNotFound:
    return PlanNotFound(
        f"plan {plan_id} is unknown, expired, carried out already or dropped for newer ones"
    )
