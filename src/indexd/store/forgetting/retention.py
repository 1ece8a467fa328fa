"""Retention: which documents a namespace's policy takes, in which order, and taking them.

    ttl        all that are older than max_age_seconds
    semantic   of those beyond max_items, first the ones marked irrelevant
    retention  then by purge_strategy: the oldest, or those of the lowest score

score is decay x relevance; relevance counts only under a policy with a `semantic:` section. Taking
happens in upserts only. The preview runs the same statements, so the two cannot disagree.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from indexd.clock import LAST, before
from indexd.db.pool import Connection
from indexd.policy import Policy
from indexd.store.forgetting import deletion
from indexd.store.forgetting.deletion import Cause, Departure
from indexd.store.forgetting.relevance import PRIOR

Reason = Literal["ttl", "semantic", "retention"]

ACTOR = "retention"


class Condemned(msgspec.Struct, frozen=True):
    """A document that retention would remove."""

    doc_id: Annotated[str, Meta(description="Id of the document")]
    namespace: Annotated[str, Meta(description="Namespace of the document")]
    ingested_at: Annotated[datetime, Meta(description="Time that the age counts from, UTC")]
    reason: Annotated[
        Reason,
        Meta(description="Why: `ttl` by age, `semantic` as irrelevant, `retention` by number"),
    ]
    score: Annotated[float, Meta(description="Decay x relevance, from 0 to 1")]


class Verdict(msgspec.Struct, frozen=True):
    """All that the policy takes, by their number; `documents` are the first of them, in order."""

    count: int
    documents: list[Condemned]


async def take(
    connection: Connection,
    namespace: str,
    policy: Policy,
    *,
    documents: int,
    at: datetime,
    protected: Sequence[str],
) -> list[Departure]:
    """Forget what the policy takes, in the transaction of the upsert that wrote `protected`.

    Where max_items holds, the caller holds the namespace's row, and `documents` is its count.
    """
    verdict = await condemned(
        connection, namespace, policy, documents=documents, at=at, protected=protected
    )
    gone: list[Departure] = []
    for reason, why, strategy in (
        ("ttl", f"older than max_age_seconds = {policy.max_age_seconds}", "ttl"),
        ("semantic", f"irrelevant, and more than max_items = {policy.max_items}", None),
        ("retention", f"more than max_items = {policy.max_items}", None),
    ):
        seen = {one.doc_id: one.ingested_at for one in verdict.documents if one.reason == reason}
        locked = await deletion.lock(connection, namespace, list(seen))
        cause = Cause(
            kind=reason,  # type: ignore[arg-type]  # one of the three
            reason=why,
            actor=ACTOR,
            at=at,
            strategy=strategy or policy.purge_strategy,
        )
        # One that was rewritten while its lock was waited for is another document now.
        same = [doc_id for doc_id, ingested_at in locked.items() if ingested_at == seen[doc_id]]
        if departure := await deletion.remove(connection, namespace, same, cause):
            gone.append(departure)
    return gone


async def condemned(
    connection: Connection,
    namespace: str,
    policy: Policy,
    *,
    documents: int,
    at: datetime,
    protected: Sequence[str] = (),
    listed: int | None = None,
) -> Verdict:
    """What the policy takes from a namespace of so many documents, in the order of removal."""
    values = values_of(namespace, policy, at) | {"protected": list(protected), "listed": listed}
    found = Verdict(0, [])
    if policy.max_age_seconds is not None:
        found = await _verdict(connection, namespace, _EXPIRED, values)
    excess = 0 if policy.max_items is None else documents - found.count - policy.max_items
    if excess > 0:
        surplus = await _verdict(
            connection, namespace, _surplus(policy), values | {"excess": excess}
        )
        found = Verdict(found.count + surplus.count, (found.documents + surplus.documents)[:listed])
    return found


def values_of(namespace: str, policy: Policy, at: datetime) -> dict[str, Any]:
    expires_before = None
    if policy.max_age_seconds is not None:
        expires_before = before(at, policy.max_age_seconds)
    return {
        "namespace": namespace,
        "half_life": policy.half_life_seconds,
        "expires_before": expires_before,
        # Without a grace also those that say they came in the future are taken.
        "graced_after": before(at, policy.grace_seconds) if policy.grace_seconds else LAST,
        "at": at,
        "prior": PRIOR,
        "protected": [],
    }


async def _verdict(
    connection: Connection, namespace: str, statement: str, values: dict[str, Any]
) -> Verdict:
    cursor = await connection.execute(statement, values)
    rows = await cursor.fetchall()
    return Verdict(
        rows[0][4] if rows else 0,
        [
            Condemned(doc_id, namespace, ingested_at, reason, score)
            for doc_id, ingested_at, reason, score, _ in rows
        ],
    )


DECAY = "indexd.decay(ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s)"
SCORE = """indexd.score(
                       coalesce(smoothed_score, %(prior)s), ingested_at,
                       coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
                   )"""
"""The score by which documents leave, where the policy has a `semantic:` section."""

_EXPIRED = f"""
    SELECT doc_id, ingested_at, 'ttl', {DECAY}, count(*) OVER ()
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND ingested_at < %(expires_before)s
       AND doc_id <> ALL(%(protected)s::text[])
     ORDER BY ingested_at, doc_id
     LIMIT %(listed)s
"""

_EVICTABLE = """(
           (%(expires_before)s::timestamptz IS NULL OR ingested_at >= %(expires_before)s)
       AND ingested_at <= %(graced_after)s
       AND documents.doc_id <> ALL(%(protected)s::text[])
   )"""
"""Not gone by age already, not in its grace, not just written."""

MANY_HALF_LIVES = 1_000
"""From so many different half-lives on, one pass over the documents is cheaper than their heads."""


def _surplus(policy: Policy) -> str:
    """The `excess` documents that leave next."""
    return f"""
        WITH RECURSIVE {_ranked(policy)}
        SELECT doc_id, ingested_at, reason, score, count(*) OVER ()
          FROM (
                SELECT *
                  FROM ranked
                 ORDER BY {purge_order(policy)}
                 LIMIT %(excess)s
               ) AS surplus
         ORDER BY {purge_order(policy)}
         LIMIT %(listed)s
    """


def purge_order(policy: Policy) -> str:
    """The first in it leaves first. Under `oldest`, a score is shown and does not count."""
    by_score = "score, " if policy.purge_strategy == "lowest_score" else ""
    return f"reason = 'retention', {by_score}ingested_at, doc_id"


def _ranked(policy: Policy) -> str:
    """CTEs that end in `ranked`, which holds at least the next `excess` documents to leave."""
    if policy.semantic:
        return _BY_RELEVANCE
    if policy.purge_strategy == "oldest":
        return f"""
            ranked AS (
                SELECT doc_id, ingested_at, {DECAY} AS score, 'retention' AS reason
                  FROM indexd.documents
                 WHERE namespace = %(namespace)s
                   AND {_EVICTABLE}
                 ORDER BY ingested_at, doc_id
                 LIMIT %(excess)s
            )
        """
    return _BY_DECAY


_HEAD = f"""
    SELECT doc_id, ingested_at, half_life_seconds
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND {_EVICTABLE}
       AND half_life_seconds {{}}
     ORDER BY ingested_at, doc_id
     LIMIT %(excess)s
"""

HALF_LIVES = f"""
    half_lives (half_life_seconds, place) AS (
        (
            SELECT half_life_seconds, 1
              FROM indexd.documents
             WHERE namespace = %(namespace)s
               AND half_life_seconds > 0
             ORDER BY half_life_seconds
             LIMIT 1
        )
        UNION ALL
        SELECT (
                SELECT documents.half_life_seconds
                  FROM indexd.documents
                 WHERE documents.namespace = %(namespace)s
                   AND documents.half_life_seconds > half_lives.half_life_seconds
                 ORDER BY documents.half_life_seconds
                 LIMIT 1
               ),
               place + 1
          FROM half_lives
         WHERE half_life_seconds IS NOT NULL
           AND place <= {MANY_HALF_LIVES}
    )
"""
"""A CTE: the half-lives of the namespace's documents, each found by one step in an index."""

# Among documents of one half-life, the oldest decayed most: the heads of these lists suffice.
_BY_DECAY = f"""
    {HALF_LIVES},
    heads AS (
        ({_HEAD.format("IS NULL")})
        UNION ALL
        SELECT head.*
          FROM half_lives
         CROSS JOIN LATERAL ({_HEAD.format("= half_lives.half_life_seconds")}) AS head
         WHERE (SELECT max(place) FROM half_lives) <= {MANY_HALF_LIVES}
        UNION ALL
        SELECT doc_id, ingested_at, half_life_seconds
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND {_EVICTABLE}
           AND half_life_seconds IS NOT NULL
           AND (SELECT max(place) FROM half_lives) > {MANY_HALF_LIVES}
    ),
    ranked AS (
        SELECT doc_id, ingested_at, {DECAY} AS score, 'retention' AS reason
          FROM heads
    )
"""

_BY_RELEVANCE = f"""
    ranked AS (
        SELECT doc_id,
               ingested_at,
               {SCORE} AS score,
               CASE WHEN irrelevant_since IS NULL THEN 'retention' ELSE 'semantic' END AS reason
          FROM indexd.documents
          LEFT JOIN (
                SELECT doc_id AS met, smoothed_score, irrelevant_since
                  FROM indexd.relevance
                 WHERE namespace = %(namespace)s
               ) AS relevance
            ON met = doc_id
         WHERE namespace = %(namespace)s
           AND {_EVICTABLE}
    )
"""
