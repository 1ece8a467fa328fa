"""Where one document stands in the purge order, and whether the next upsert removes it.

`retention.condemned` lists documents, here they are counted: one statement answers one row and
sorts nothing. The two agree on every document.
"""

import msgspec

from indexd.db.pool import Connection
from indexd.policy import Policy
from indexd.store import rows
from indexd.store.forgetting.retention import (
    DECAY,
    HALF_LIVES,
    MANY_HALF_LIVES,
    WITH_RELEVANCE,
    NamespaceUnderPolicy,
    Reason,
    policy_values,
    purge_order,
)
from indexd.store.visible import live


class PurgeRank(msgspec.Struct, frozen=True):
    """`rank` counts from 1, the next to leave, over all documents, whatever their grace.

    It is None where max_items sets no order, and of a document that has expired: such documents
    have left the order. `reason` says why the next upsert removes the document as surplus; None
    where it does not. A document past its age is not surplus.
    """

    rank: int | None
    reason: Reason | None


class _Counts(msgspec.Struct, frozen=True):
    before: int
    leaving_before: int
    reason: Reason
    may_leave: bool


async def rank_of(connection: Connection, state: NamespaceUnderPolicy, doc_id: str) -> PurgeRank:
    """The rank of one document.

    `state.documents` is the number of those that have not expired.

    Without max_items nothing is read. Else the cost is that of a count, for which no index keeps a
    number: under `oldest` and `lowest_score` of the index entries before the document, and of those
    past their age (0.5 and 3 microseconds an entry, on two busy cores); where there are more than
    MANY_HALF_LIVES different half-lives, of all documents that have one. Under a policy with a
    `semantic:` section no index has the order: then it is one pass over the namespace's documents
    and their relevance (8 microseconds a document).
    """
    policy = state.policy
    if policy.max_items is None:
        return PurgeRank(None, None)
    found = await rows.first(
        connection, _Counts, statement(policy), policy_values(state) | {"doc_id": doc_id}
    )
    if found is None:
        return PurgeRank(None, None)
    leaves = found.may_leave and found.leaving_before < state.documents - policy.max_items
    return PurgeRank(found.before + 1, found.reason if leaves else None)


def statement(policy: Policy) -> str:
    """The SQL of `rank_of`: CTEs that end in `own`, the document, and `counted`, those before it.

    `before` counts the documents that come before it in the purge order. `leaving_before` counts
    those that retention removes before it: past their age, or earlier in the order and not in their
    grace.
    """
    if policy.semantic:
        counted = _by_relevance(policy)
    elif policy.purge_strategy == "oldest":
        counted = _BY_AGE
    else:
        counted = _BY_DECAY
    return f"""
    /* indexd:forgetting.purge_rank */
    WITH RECURSIVE {counted}
    SELECT before,
           leaving_before,
           own.reason,
           NOT {_expired("own")} AND own.ingested_at <= %(graced_after)s AS may_leave
      FROM own
     CROSS JOIN counted
    """


def _expired(relation: str) -> str:
    """SQL: a row of this relation is past its age."""
    return f"coalesce({relation}.ingested_at < %(expires_before)s::timestamptz, false)"


def _counts(is_before: str, relation: str = "documents") -> str:
    return f"""
               count(*) FILTER (WHERE {is_before}) AS before,
               count(*) FILTER (
                   WHERE {_expired(relation)}
                      OR ({is_before} AND {relation}.ingested_at <= %(graced_after)s)
               ) AS leaving_before"""


_OLDER_THAN_OWN = """(ingested_at, doc_id)
             < ((SELECT ingested_at FROM own), (SELECT doc_id FROM own) COLLATE "C")"""

_BY_AGE = f"""
    own AS MATERIALIZED (
        SELECT ingested_at, doc_id, 'retention' AS reason
          FROM indexd.documents
         WHERE documents.namespace = %(namespace)s
           AND documents.doc_id = %(doc_id)s
           AND {live()}
    ),
    -- Documents past their age come first in this order, those in their grace last. So of a
    -- document that may leave, both counts are the same. An index has all of them, and another
    -- those that expired.
    all_before AS (
        SELECT count(*) AS documents
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND {_OLDER_THAN_OWN}
    ),
    expired_before AS (
        SELECT count(*) AS documents
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND expires_at <= %(at)s
           AND {_OLDER_THAN_OWN}
    ),
    counted AS (
        SELECT all_before.documents - expired_before.documents AS before,
               all_before.documents - expired_before.documents AS leaving_before
          FROM all_before
         CROSS JOIN expired_before
    )"""


def _until(half_life: str) -> str:
    """SQL: the latest ingested_at of documents with this half-life that have to be looked at.

    These are the ones that can come before `own`, or be past their age. It only narrows the range:
    the exact comparison follows. So half-lives over 1e15 s are taken as that, where a product could
    overflow, and the margins are many times the rounding errors of power() and ln().
    """
    return f"""greatest(
                        to_timestamp(least(greatest(
                            date_part('epoch', %(at)s::timestamptz)
                            - least({half_life}, 1e15::float8)
                            * (own.half_lives * (1 - 1e-12::float8) - 1e-12::float8)
                            + 1,
                        -1e11::float8), 1e12::float8)),
                        CASE WHEN own.score >= 1 THEN own.ingested_at END,
                        %(expires_before)s::timestamptz
                    )"""


_LESS_THAN_OWN = f"""({DECAY}, documents.ingested_at, documents.doc_id)
                         < (own.score, own.ingested_at, own.doc_id)"""


def _counted_where(half_life: str) -> str:
    """SQL: the counts of the documents whose half-life meets a condition."""
    return f"""
        SELECT {_counts(_LESS_THAN_OWN)}
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND half_life_seconds {half_life}"""


def by_decay(many: int) -> str:
    """With more than `many` half-lives in the namespace, those that have one are one slice."""
    return f"""
    -- The document, its decay, and how many half-lives old that makes it.
    own AS MATERIALIZED (
        SELECT ingested_at,
               doc_id,
               'retention' AS reason,
               score,
               CASE WHEN score = 0 THEN 999 ELSE ln(score) / ln(0.5::float8) END AS half_lives
          FROM (
                SELECT ingested_at, doc_id, {DECAY} AS score
                  FROM indexd.documents
                 WHERE documents.namespace = %(namespace)s
                   AND documents.doc_id = %(doc_id)s
                   AND {live()}
               ) AS found
    ),
    {HALF_LIVES},
    slices AS (
        -- Documents that take the half-life of the policy.
        SELECT slice.*
          FROM own
         CROSS JOIN LATERAL ({_counted_where("IS NULL")}
           AND ingested_at <= {_until("%(half_life)s::float8")}
               ) AS slice
        UNION ALL
        -- Those of each half-life of their own, if there are few different ones.
        SELECT slice.*
          FROM own
         CROSS JOIN half_lives
         CROSS JOIN LATERAL ({_counted_where("= half_lives.half_life_seconds")}
           AND ingested_at <= {_until("half_lives.half_life_seconds")}
               ) AS slice
         WHERE half_lives.half_life_seconds IS NOT NULL
           AND (SELECT max(place) FROM half_lives) <= {many}
        UNION ALL
        -- If there are many: all of these, in one pass.
        SELECT slice.*
          FROM own
         CROSS JOIN LATERAL ({_counted_where("IS NOT NULL")}
           AND (SELECT max(place) FROM half_lives) > {many}
               ) AS slice
        UNION ALL
        -- Those that expired are taken off again: an index holds only documents that expire.
        SELECT -before, -leaving_before
          FROM own
         CROSS JOIN LATERAL (
        SELECT {_counts(_LESS_THAN_OWN)}
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND expires_at <= %(at)s
               ) AS slice
    ),
    counted AS (
        SELECT sum(before)::bigint AS before,
               sum(leaving_before)::bigint AS leaving_before
          FROM slices
    )"""


_BY_DECAY = by_decay(MANY_HALF_LIVES)


def _by_relevance(policy: Policy) -> str:
    order = purge_order(policy)
    is_before = f"({_qualified(order, 'placed')}) < ({_qualified(order, 'own')})"
    return f"""
    placed AS NOT MATERIALIZED (
        {WITH_RELEVANCE}
           AND {live()}
    ),
    own AS MATERIALIZED (
        SELECT * FROM placed WHERE doc_id = %(doc_id)s
    ),
    counted AS (
        SELECT {_counts(is_before, "placed")}
          FROM placed
         CROSS JOIN own
    )"""


def _qualified(order: str, relation: str) -> str:
    return ", ".join(f"{relation}.{part}" for part in order.split(", "))
