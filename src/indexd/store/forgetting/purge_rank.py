"""Where one document stands in the purge order, and whether the next upsert takes it.

`retention.condemned` lists documents, here they are counted: one statement answers one row and
sorts nothing. The two agree on every document.
"""

from datetime import datetime

import msgspec

from indexd.db.pool import Connection
from indexd.policy import Policy
from indexd.store.forgetting.retention import (
    DECAY,
    HALF_LIVES,
    MANY_HALF_LIVES,
    SCORE,
    Reason,
    values_of,
)


class Place(msgspec.Struct, frozen=True):
    """`rank` counts from 1, the next to leave, over all documents, whatever their grace.

    It is None where max_items sets no order. `reason` says why the next upsert takes the document
    as surplus; None where it does not. A document past its age is not surplus.
    """

    rank: int | None
    reason: Reason | None


async def place(
    connection: Connection,
    namespace: str,
    policy: Policy,
    doc_id: str,
    *,
    documents: int,
    at: datetime,
) -> Place:
    """The place of one document in a namespace that holds `documents` of them.

    Without max_items nothing is read. Else the cost is that of a count, for which no index keeps a
    number: under `oldest` and `lowest_score` of the index entries before the document, and of those
    past their age (0.5 and 3 microseconds an entry, on two busy cores); where there are more than
    MANY_HALF_LIVES different half-lives, of all documents that have one. Under a policy with a
    `semantic:` section no index has the order: then it is one pass over the namespace's documents
    and their relevance (8 microseconds a document).
    """
    if policy.max_items is None:
        return Place(None, None)
    cursor = await connection.execute(
        statement(policy), values_of(namespace, policy, at) | {"doc_id": doc_id}
    )
    row = await cursor.fetchone()
    if row is None:
        return Place(None, None)
    before, leaving_before, reason, may_leave = row
    leaves = may_leave and leaving_before < documents - policy.max_items
    return Place(before + 1, reason if leaves else None)


def statement(policy: Policy) -> str:
    """The SQL of `place`: CTEs that end in `own`, the document, and `counted`, what is before it.

    `before` counts the documents that come before it in the purge order. `leaving_before` counts
    those that retention takes before it: past their age, or earlier in the order and not in their
    grace.
    """
    if policy.semantic:
        counted = _by_relevance(policy)
    elif policy.purge_strategy == "oldest":
        counted = _BY_AGE
    else:
        counted = _BY_DECAY
    return f"""
        WITH RECURSIVE {counted}
        SELECT before,
               leaving_before,
               own.reason,
               NOT {_EXPIRED.format("own")} AND own.ingested_at <= %(graced_after)s
          FROM own
         CROSS JOIN counted
    """


_EXPIRED = "coalesce({}.ingested_at < %(expires_before)s::timestamptz, false)"

_OWN_ROW = """
         WHERE documents.namespace = %(namespace)s
           AND documents.doc_id = %(doc_id)s
"""


def _counts(is_before: str, ingested_at: str = "documents") -> str:
    return f"""
               count(*) FILTER (WHERE {is_before}) AS before,
               count(*) FILTER (
                   WHERE {_EXPIRED.format(ingested_at)}
                      OR ({is_before} AND {ingested_at}.ingested_at <= %(graced_after)s)
               ) AS leaving_before
    """


# Those past their age are the first in this order, those in their grace the last: of a document
# that may leave, both counts are one.
_BY_AGE = f"""
    own AS MATERIALIZED (
        SELECT ingested_at, doc_id, 'retention' AS reason
          FROM indexd.documents
        {_OWN_ROW}
    ),
    counted AS (
        SELECT count(*) AS before,
               count(*) AS leaving_before
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND (ingested_at, doc_id)
             < ((SELECT ingested_at FROM own), (SELECT doc_id FROM own) COLLATE "C")
    )
"""

# The latest ingested_at that a document of this half-life can have and come before `own`, or be
# past its age. It only narrows the range: the exact comparison follows. So half-lives over 1e15 s
# are taken as that, where a product could overflow, and the margins are many times the rounding
# errors of power() and ln().
_UNTIL = """
    greatest(
        to_timestamp(least(greatest(
            date_part('epoch', %(at)s::timestamptz)
            - least({half_life}, 1e15::float8)
            * (own.half_lives * (1 - 1e-12::float8) - 1e-12::float8)
            + 1,
        -1e11::float8), 1e12::float8)),
        CASE WHEN own.score >= 1 THEN own.ingested_at END,
        %(expires_before)s::timestamptz
    )
"""

_SLICE = f"""
        SELECT {
    _counts(
        f'''({DECAY}, documents.ingested_at, documents.doc_id)
                           < (own.score, own.ingested_at, own.doc_id)'''
    )
}
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND half_life_seconds {{}}
"""


def by_decay(many: int) -> str:
    """With more than `many` half-lives in the namespace, those that have one are one slice."""
    return f"""
    own AS MATERIALIZED (
        SELECT ingested_at,
               doc_id,
               'retention' AS reason,
               score,
               CASE WHEN score = 0 THEN 999 ELSE ln(score) / ln(0.5::float8) END AS half_lives
          FROM (
                SELECT ingested_at, doc_id, {DECAY} AS score
                  FROM indexd.documents
                {_OWN_ROW}
               ) AS found
    ),
    {HALF_LIVES},
    slices AS (
        SELECT slice.*
          FROM own
         CROSS JOIN LATERAL (
                {_SLICE.format("IS NULL")}
                   AND ingested_at <= {_UNTIL.format(half_life="%(half_life)s::float8")}
               ) AS slice
        UNION ALL
        SELECT slice.*
          FROM own
         CROSS JOIN half_lives
         CROSS JOIN LATERAL (
                {_SLICE.format("= half_lives.half_life_seconds")}
                   AND ingested_at <= {_UNTIL.format(half_life="half_lives.half_life_seconds")}
               ) AS slice
         WHERE half_lives.half_life_seconds IS NOT NULL
           AND (SELECT max(place) FROM half_lives) <= {many}
        UNION ALL
        SELECT slice.*
          FROM own
         CROSS JOIN LATERAL (
                {_SLICE.format("IS NOT NULL")}
                   AND (SELECT max(place) FROM half_lives) > {many}
               ) AS slice
    ),
    counted AS (
        SELECT sum(before)::bigint AS before,
               sum(leaving_before)::bigint AS leaving_before
          FROM slices
    )
"""


_BY_DECAY = by_decay(MANY_HALF_LIVES)


def _by_relevance(policy: Policy) -> str:
    score = "score, " if policy.purge_strategy == "lowest_score" else ""
    key = f"reason = 'retention', {score}ingested_at, doc_id"
    is_before = f"({_qualified(key, 'placed')}) < ({_qualified(key, 'own')})"
    return f"""
    placed AS NOT MATERIALIZED (
        SELECT ingested_at,
               doc_id,
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
    ),
    own AS MATERIALIZED (
        SELECT * FROM placed WHERE doc_id = %(doc_id)s
    ),
    counted AS (
        SELECT {_counts(is_before, "placed")}
          FROM placed
         CROSS JOIN own
    )
    """


def _qualified(key: str, relation: str) -> str:
    return ", ".join(f"{relation}.{part}" for part in key.split(", "))
