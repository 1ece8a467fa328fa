"""Dry runs of forget: what one found is kept as a plan, to be carried out as it was seen."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
from psycopg.types.json import Jsonb

from indexd.db.pool import Connection
from indexd.errors import PlanDrifted, PlanNotFound
from indexd.store.forgetting import deletion
from indexd.store.forgetting.deletion import Cause
from indexd.store.forgetting.forget import (
    CONDEMNED,
    LISTED,
    Condition,
    Forgotten,
    Named,
    Removal,
    named,
    reached,
    values_of,
)

LISTED_DRIFT = 100

KEPT_PLANS = 8
"""Plans kept of one namespace, and as many of all namespaces at once; a newer one drops older."""

KEPT_DOCUMENTS = 200_000
"""Documents in all the plans that are kept beside the newest: about 50 MB."""

BATCH_DOCUMENTS = 10_000
"""Documents of an expired plan that are deleted in one transaction: 0.4 s on busy cores."""


class Plan(msgspec.Struct, frozen=True):
    """What a forget with the same condition would remove at this moment."""

    plan_id: UUID
    expires_at: datetime
    count: int
    documents: list[Named]


async def make(
    connection: Connection, condition: Condition, *, at: datetime, lifetime: timedelta
) -> Plan:
    """Find what a condition condemns and keep it; changes no document.

    Plans that expired go, and so do the oldest of the same namespace beyond KEPT_PLANS and
    KEPT_DOCUMENTS: to carry them out is PlanNotFound from then on.
    """
    plan_id, expires_at = uuid4(), at + lifetime
    await connection.execute(
        """
        INSERT INTO indexd.forget_plans (namespace, plan_id, filter, created_at, expires_at)
        VALUES (%(namespace)s, %(plan_id)s, %(filter)s, %(at)s, %(expires_at)s)
        """,
        {
            "namespace": condition.namespace or "",
            "plan_id": plan_id,
            "filter": Jsonb(condition.logged()),
            "at": at,
            "expires_at": expires_at,
        },
    )
    count = 0
    rows: list[tuple[str, str, datetime]] = []
    for namespace in await reached(connection, condition):
        cursor = await connection.execute(
            f"""
            INSERT INTO indexd.forget_plan_documents (
                namespace, plan_id, doc_id, ingested_at, digest
            )
            SELECT %(namespace)s, %(plan_id)s, doc_id, ingested_at, digest
              FROM ({CONDEMNED}) AS condemned
            """,
            values_of(condition, namespace) | {"plan_id": plan_id},
        )
        count += cursor.rowcount
        if len(rows) < LISTED and cursor.rowcount:
            rows += await _planned(connection, namespace, plan_id)
    await _drop_superseded(connection, condition.namespace or "", plan_id, at)
    return Plan(plan_id, expires_at, count, named(rows))


async def _planned(
    connection: Connection, namespace: str, plan_id: UUID
) -> list[tuple[str, str, datetime]]:
    cursor = await connection.execute(
        """
        SELECT doc_id, namespace, ingested_at
          FROM indexd.forget_plan_documents
         WHERE namespace = %(namespace)s
           AND plan_id = %(plan_id)s
         ORDER BY doc_id
         LIMIT %(listed)s
        """,
        {"namespace": namespace, "plan_id": plan_id, "listed": LISTED},
    )
    return await cursor.fetchall()


async def carry_out(
    connection: Connection,
    plan_id: UUID,
    *,
    reason: str,
    actor: str,
    at: datetime,
    namespaces: Collection[str] | None = None,
) -> Forgotten:
    """Remove exactly the planned documents in the version that was seen; once.

    Raises PlanNotFound, also for one that expired, was carried out, or reaches further than these
    namespaces (None is all), and PlanDrifted.
    """
    condition = await _claim(connection, plan_id, at)
    if namespaces is not None and condition.get("namespace") not in namespaces:
        raise _unknown(plan_id)
    removal = Removal(Cause("manual", reason, actor, at, filter=condition))
    drift: list[dict[str, str]] = []
    drifted = 0
    for namespace in await _namespaces(connection, plan_id):
        await deletion.hold(connection, namespace)
        cursor = await connection.execute(
            """
            SELECT planned.doc_id,
                   planned.ingested_at,
                   document.digest = planned.digest
                   AND document.ingested_at = planned.ingested_at
              FROM indexd.forget_plan_documents AS planned
              JOIN indexd.documents AS document
                ON document.namespace = %(namespace)s
               AND document.doc_id = planned.doc_id
             WHERE planned.namespace = %(namespace)s
               AND planned.plan_id = %(plan_id)s
             ORDER BY planned.doc_id
               FOR UPDATE OF document
            """,
            {"namespace": namespace, "plan_id": plan_id},
        )
        rows = await cursor.fetchall()
        locked = {doc_id: ingested_at for doc_id, ingested_at, _ in rows}
        changed = [doc_id for doc_id, _, same in rows if not same]
        gone = await _gone(connection, namespace, plan_id, set(locked))
        drifted += len(changed) + len(gone)
        drift += [
            {"doc_id": doc_id, "namespace": namespace, "drift": what}
            for what, doc_ids in (("changed", changed), ("gone", gone))
            for doc_id in doc_ids[:LISTED_DRIFT]
        ]
        if not drifted:
            await removal.remove(connection, namespace, locked)
    if drifted:
        raise PlanDrifted(
            f"{drifted} of the planned documents changed or left since the dry run",
            hint="make a new dry run",
            details={"drifted": drifted, "documents": drift[:LISTED_DRIFT]},
        )
    await _drop(connection, plan_id)
    return removal.forgotten


async def _claim(connection: Connection, plan_id: UUID, at: datetime) -> dict[str, Any]:
    """Hold the plan, so that nobody else carries it out; answers its condition."""
    cursor = await connection.execute(
        """
        SELECT filter
          FROM indexd.forget_plans
         WHERE plan_id = %(plan_id)s
           AND expires_at > %(at)s
           FOR UPDATE
        """,
        {"plan_id": plan_id, "at": at},
    )
    row = await cursor.fetchone()
    if row is None:
        raise _unknown(plan_id)
    condition: dict[str, Any] = row[0]
    return condition


async def _namespaces(connection: Connection, plan_id: UUID) -> list[str]:
    cursor = await connection.execute(
        """
        SELECT DISTINCT namespace
          FROM indexd.forget_plan_documents
         WHERE plan_id = %(plan_id)s
         ORDER BY namespace
        """,
        {"plan_id": plan_id},
    )
    return [namespace for (namespace,) in await cursor.fetchall()]


async def _gone(
    connection: Connection, namespace: str, plan_id: UUID, there: set[str]
) -> list[str]:
    cursor = await connection.execute(
        """
        SELECT doc_id
          FROM indexd.forget_plan_documents
         WHERE namespace = %(namespace)s
           AND plan_id = %(plan_id)s
         ORDER BY doc_id
        """,
        {"namespace": namespace, "plan_id": plan_id},
    )
    return [doc_id for (doc_id,) in await cursor.fetchall() if doc_id not in there]


async def _drop(connection: Connection, *plan_ids: UUID) -> None:
    for table in ("forget_plan_documents", "forget_plans"):
        await connection.execute(
            f"DELETE FROM indexd.{table} WHERE plan_id = ANY(%(plan_ids)s)",
            {"plan_ids": list(plan_ids)},
        )


async def _drop_superseded(
    connection: Connection, namespace: str, newest: UUID, at: datetime
) -> None:
    """Drop what expired, and the older plans of the namespace that are too many or too large.

    One that is being carried out at the moment is passed over.
    """
    cursor = await connection.execute(
        """
        WITH sized AS (
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
           FOR UPDATE SKIP LOCKED
        """,
        {
            "namespace": namespace,
            "newest": newest,
            "at": at,
            "kept_plans": KEPT_PLANS,
            "kept_documents": KEPT_DOCUMENTS,
        },
    )
    if dropped := [plan_id for (plan_id,) in await cursor.fetchall()]:
        await _drop(connection, *dropped)


async def drop_expired(connection: Connection, *, at: datetime) -> int:
    """Delete the plans that expired, in batches; how many plans.

    The connection is in autocommit: each batch is a transaction. A plan that is half deleted can't
    be carried out, not even by a server whose clock is behind: its time is up from the first batch
    on.
    """
    dropped = 0
    while (done := await _drop_batch(connection, at)) is not None:
        dropped += done
    return dropped


async def _drop_batch(connection: Connection, at: datetime) -> bool | None:
    """Whether that was the last of a plan; None if none has expired."""
    async with connection.transaction():
        cursor = await connection.execute(
            """
            SELECT plan_id
              FROM indexd.forget_plans
             WHERE expires_at <= %(at)s
             LIMIT 1
               FOR UPDATE SKIP LOCKED
            """,
            {"at": at},
        )
        row = await cursor.fetchone()
        if row is None:
            return None
        values = {"plan_id": row[0], "limit": BATCH_DOCUMENTS}
        await connection.execute(
            """
            UPDATE indexd.forget_plans
               SET expires_at = created_at
             WHERE plan_id = %(plan_id)s
               AND expires_at > created_at
            """,
            values,
        )
        cursor = await connection.execute(
            """
            DELETE FROM indexd.forget_plan_documents
             WHERE plan_id = %(plan_id)s
               AND (namespace, doc_id) IN (
                    SELECT namespace, doc_id
                      FROM indexd.forget_plan_documents
                     WHERE plan_id = %(plan_id)s
                     LIMIT %(limit)s
                   )
            """,
            values,
        )
        if cursor.rowcount == BATCH_DOCUMENTS:
            return False
        await connection.execute(
            "DELETE FROM indexd.forget_plans WHERE plan_id = %(plan_id)s", values
        )
        return True


def _unknown(plan_id: UUID) -> PlanNotFound:
    return PlanNotFound(
        f"plan {plan_id} is unknown, expired, carried out already or dropped for newer ones"
    )
