"""Retention: which documents the policy of a namespace removes, in which order, and removing them.

    ttl        all that expired by their own expires_at, or are older than max_age_seconds
    semantic   of those beyond max_items, first the ones marked irrelevant
    retention  then by purge_strategy: the oldest, or those of the lowest score

score is decay x relevance; relevance counts only under a policy with a `semantic:` section. Removal
happens in upserts only: those that expired leave before the write (`expiry`), the others after it.
The preview runs the same statements, so the two cannot disagree.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from indexd.clock import LAST, before
from indexd.db.pool import Connection
from indexd.policy import Policy
from indexd.store import rows
from indexd.store.forgetting import deletion
from indexd.store.forgetting.deletion import Cause, Deletion
from indexd.store.forgetting.relevance import PRIOR
from indexd.store.visible import live

Reason = Literal["ttl", "semantic", "retention"]

ACTOR = "retention"
"""Who removed a document, as the log names it."""


class NamespaceUnderPolicy(msgspec.Struct, frozen=True):
    """A namespace that holds `documents` documents, and its policy, at an instant."""

    namespace: str
    policy: Policy
    documents: int
    at: datetime


class Condemned(msgspec.Struct, frozen=True):
    """A document that retention would remove."""

    doc_id: Annotated[str, Meta(description="Id of the document")]
    namespace: Annotated[str, Meta(description="Namespace of the document")]
    ingested_at: Annotated[datetime, Meta(description="Time that the age counts from, UTC")]
    reason: Annotated[
        Reason,
        Meta(
            description="Why: `ttl` by age or its own expiry, `semantic` as irrelevant, "
            "`retention` by number"
        ),
    ]
    score: Annotated[float, Meta(description="Decay x relevance, from 0 to 1")]


class Verdict(msgspec.Struct, frozen=True):
    """The number of documents that the policy removes, and the first of them in that order."""

    count: int
    documents: list[Condemned]


async def enforce(
    connection: Connection, state: NamespaceUnderPolicy, *, protected: Sequence[str]
) -> list[Deletion]:
    """Remove what the policy condemns, but for the documents `protected`, which were just written.

    Atomic: in the transaction of the upsert that wrote them. Locks: the caller holds the
    namespace's row already where the policy has max_items, has removed what expired, and
    `state.documents` is the number of the others. Then
    for each of the three reasons, in the order of this module's docstring: the rows of the
    documents by doc_id, and the namespace's row for the counters. A document that was rewritten
    while its lock was waited for stays. It raises no error of its own.
    """
    policy = state.policy
    verdict = await condemned(connection, state, protected=protected, aged_only=True)
    deletions: list[Deletion] = []
    for reason, why, strategy in (
        ("ttl", f"older than max_age_seconds = {policy.max_age_seconds}", "ttl"),
        ("semantic", f"irrelevant, and more than max_items = {policy.max_items}", None),
        ("retention", f"more than max_items = {policy.max_items}", None),
    ):
        seen = {one.doc_id: one.ingested_at for one in verdict.documents if one.reason == reason}
        locked = await deletion.lock(connection, state.namespace, list(seen))
        cause = Cause(
            kind=reason,  # type: ignore[arg-type]  # one of the three
            reason=why,
            actor=ACTOR,
            at=state.at,
            strategy=strategy or policy.purge_strategy,
        )
        same = [doc_id for doc_id, ingested_at in locked.items() if ingested_at == seen[doc_id]]
        if deleted := await deletion.remove(connection, state.namespace, same, cause):
            deletions.append(deleted)
    return deletions


async def condemned(
    connection: Connection,
    state: NamespaceUnderPolicy,
    *,
    protected: Sequence[str] = (),
    listed: int | None = None,
    aged_only: bool = False,
) -> Verdict:
    """What the policy removes, in that order; the first `listed` of them by name (None is all).

    `aged_only` says that the namespace has no document to remove that has expired by its own time.
    """
    policy = state.policy
    values = policy_values(state) | {"protected": list(protected), "listed": listed}
    found = Verdict(0, [])
    if policy.max_age_seconds is not None or not aged_only:
        found = await _verdict(connection, EXPIRED, values)
    excess = 0 if policy.max_items is None else state.documents - found.count - policy.max_items
    if excess > 0:
        surplus = await _verdict(connection, surplus_of(policy), values | {"excess": excess})
        found = Verdict(found.count + surplus.count, (found.documents + surplus.documents)[:listed])
    return found


def policy_values(state: NamespaceUnderPolicy) -> dict[str, Any]:
    """The values that the statements of a policy name."""
    policy = state.policy
    expires_before = None
    if policy.max_age_seconds is not None:
        expires_before = before(state.at, policy.max_age_seconds)
    return {
        "namespace": state.namespace,
        "half_life": policy.half_life_seconds,
        "expires_before": expires_before,
        # Without a grace, documents whose ingested_at lies in the future may leave, too.
        "graced_after": before(state.at, policy.grace_seconds) if policy.grace_seconds else LAST,
        "at": state.at,
        "prior": PRIOR,
        "protected": [],
    }


class _CondemnedRow(msgspec.Struct, frozen=True):
    """`count` is the number of all rows, also of those beyond the limit."""

    doc_id: str
    ingested_at: datetime
    reason: Reason
    score: float
    count: int


async def _verdict(connection: Connection, statement: str, values: dict[str, Any]) -> Verdict:
    found = await rows.every(connection, _CondemnedRow, statement, values)
    namespace = values["namespace"]
    return Verdict(
        next((row.count for row in found), 0),
        [Condemned(row.doc_id, namespace, row.ingested_at, row.reason, row.score) for row in found],
    )


DECAY = """indexd.decay(
                   ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
               )"""
"""What is left of a document's score for its age, from 0 to 1."""

SCORE = """indexd.score(
                   coalesce(smoothed_score, %(prior)s), ingested_at,
                   coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
               )"""
"""The score by which documents leave, where the policy has a `semantic:` section."""

EXPIRED = f"""
    /* indexd:forgetting.retention.expired */
    SELECT doc_id, ingested_at, 'ttl' AS reason, {DECAY} AS score, count(*) OVER () AS count
      FROM (
            SELECT doc_id, ingested_at, half_life_seconds, expires_at
              FROM indexd.documents
             WHERE namespace = %(namespace)s
               AND ingested_at < %(expires_before)s
            UNION
            SELECT doc_id, ingested_at, half_life_seconds, expires_at
              FROM indexd.documents
             WHERE namespace = %(namespace)s
               AND expires_at <= %(at)s
           ) AS due
     WHERE doc_id <> ALL(%(protected)s::text[])
     -- Those that expired by their own time leave before the write, the others after it.
     ORDER BY {live("due")}, ingested_at, doc_id
     LIMIT %(listed)s
"""

_EVICTABLE = f"""(
               -- Not expired, not too old already, older than the grace, and not just written.
               (%(expires_before)s::timestamptz IS NULL OR ingested_at >= %(expires_before)s)
               AND ingested_at <= %(graced_after)s
               AND documents.doc_id <> ALL(%(protected)s::text[])
               AND {live()}
           )"""

MANY_HALF_LIVES = 1_000
"""Different half-lives above which one pass over the documents is cheaper than one index scan each.
"""


def surplus_of(policy: Policy) -> str:
    """SQL: the `excess` documents that leave next, in their order."""
    return f"""
    /* indexd:forgetting.retention.surplus */
    WITH RECURSIVE {_ranked(policy)},
    surplus AS (
        SELECT *
          FROM ranked
         ORDER BY {purge_order(policy)}
         LIMIT %(excess)s
    )
    -- The count is of all of them, the list may be shorter.
    SELECT doc_id, ingested_at, reason, score, count(*) OVER () AS count
      FROM surplus
     ORDER BY {purge_order(policy)}
     LIMIT %(listed)s
    """


def purge_order(policy: Policy) -> str:
    """SQL: the first in this order leaves first. Under `oldest`, the score is shown only."""
    by_score = "score, " if policy.purge_strategy == "lowest_score" else ""
    return f"reason = 'retention', {by_score}ingested_at, doc_id"


def _ranked(policy: Policy) -> str:
    """CTEs that end in `ranked`, which holds at least the next `excess` documents to leave."""
    if policy.semantic:
        return _BY_RELEVANCE
    return _BY_AGE if policy.purge_strategy == "oldest" else _BY_DECAY


_BY_AGE = f"""
    -- The oldest leave first: an index has this order.
    ranked AS (
        SELECT doc_id, ingested_at, {DECAY} AS score, 'retention' AS reason
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND {_EVICTABLE}
         ORDER BY ingested_at, doc_id
         LIMIT %(excess)s
    )"""


def _oldest_with(half_life: str) -> str:
    """SQL: the `excess` oldest documents whose half-life meets a condition."""
    return f"""
            SELECT doc_id, ingested_at, half_life_seconds
              FROM indexd.documents
             WHERE namespace = %(namespace)s
               AND {_EVICTABLE}
               AND half_life_seconds {half_life}
             ORDER BY ingested_at, doc_id
             LIMIT %(excess)s"""


HALF_LIVES = f"""
    -- The different half-lives that documents of the namespace have of their own, ascending. Each
    -- step finds the next one in an index. There is one step beyond the last, whose half-life is
    -- NULL, and none beyond {MANY_HALF_LIVES:,} half-lives.
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
    )"""

_BY_DECAY = f"""{HALF_LIVES},
    -- Among documents of one half-life, the oldest have decayed most, and `excess` of each are
    -- enough. First those that take the half-life of the policy.
    oldest AS (
        ({_oldest_with("IS NULL")}
        )
        UNION ALL
        -- Then those of each half-life of their own, if there are few different ones.
        SELECT of_one_half_life.*
          FROM half_lives
         CROSS JOIN LATERAL ({_oldest_with("= half_lives.half_life_seconds")}
               ) AS of_one_half_life
         WHERE (SELECT max(place) FROM half_lives) <= {MANY_HALF_LIVES}
        UNION ALL
        -- If there are many: all of these, in one pass.
        SELECT doc_id, ingested_at, half_life_seconds
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND {_EVICTABLE}
           AND half_life_seconds IS NOT NULL
           AND (SELECT max(place) FROM half_lives) > {MANY_HALF_LIVES}
    ),
    ranked AS (
        SELECT doc_id, ingested_at, {DECAY} AS score, 'retention' AS reason
          FROM oldest
    )"""

WITH_RELEVANCE = f"""SELECT doc_id,
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
         WHERE namespace = %(namespace)s"""
"""SQL without WITH: every document of the namespace, with the score and reason by which it leaves
where the policy has a `semantic:` section. A condition may follow."""

_BY_RELEVANCE = f"""
    -- Every document with what searches showed of it. Those marked irrelevant have another reason.
    ranked AS (
        {WITH_RELEVANCE}
           AND {_EVICTABLE}
    )"""
