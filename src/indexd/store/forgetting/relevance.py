"""What searches showed of a document's worth: counts, a smoothed score, the mark `irrelevant`.

A document is exposed when it is among the results of a vector search. Its cosine there (before
decay: age must not count twice, and clamped to 0..1) moves a smoothed score that starts at PRIOR:

    smoothed = smoothed + WEIGHT x (cosine - smoothed)

That score is what `lowest_score` multiplies decay with. It never leaves 0..1, so however often a
document is found, the product still fades with its age.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from indexd.clock import before
from indexd.db.pool import Connection
from indexd.policy import Semantic
from indexd.store import rows
from indexd.store.visible import live

PRIOR = 0.5
"""Smoothed score of a document that no search has found yet: the middle of 0..1."""

WEIGHT = 0.1
"""Share of one exposure in the smoothed score, from 0 to 1."""


class Exposure(msgspec.Struct, frozen=True):
    """What searches showed of one document since the last flush.

    `hits` are exposures with a cosine of PRIOR or more; `smoothed_score` is where these exposures
    alone would have brought one that started at PRIOR.
    """

    doc_id: str
    exposures: int
    hits: int
    best_score: float
    smoothed_score: float

    def seen(self, cosine: float) -> "Exposure":
        """This, with one more exposure."""
        score = min(max(cosine, 0.0), 1.0)
        return Exposure(
            self.doc_id,
            self.exposures + 1,
            self.hits + (score >= PRIOR),
            max(self.best_score, score),
            self.smoothed_score + WEIGHT * (score - self.smoothed_score),
        )


RECORD = """
    /* indexd:forgetting.relevance.record */
    WITH existing AS (
        SELECT doc_id
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND doc_id = ANY(%(doc_id)s)
         ORDER BY doc_id
           FOR KEY SHARE SKIP LOCKED
    )
    INSERT INTO indexd.relevance AS relevance (
        namespace, doc_id, exposures, hits, days, last_exposed_at, best_score, smoothed_score
    )
    SELECT %(namespace)s, doc_id, exposures, hits, 1, %(at)s, best_score, smoothed_score
      FROM unnest(
            %(doc_id)s::text[], %(exposures)s::bigint[], %(hits)s::bigint[],
            %(best_score)s::float8[], %(smoothed_score)s::float8[]
           ) AS sent (doc_id, exposures, hits, best_score, smoothed_score)
      JOIN existing USING (doc_id)
     ORDER BY doc_id
    ON CONFLICT (namespace, doc_id) DO UPDATE
       SET exposures       = relevance.exposures + excluded.exposures,
           hits            = relevance.hits      + excluded.hits,
           days            = relevance.days + (
                                 date_trunc('day', relevance.last_exposed_at, 'UTC')
                                 < date_trunc('day', excluded.last_exposed_at, 'UTC')
                             )::int,
           last_exposed_at = greatest(relevance.last_exposed_at, excluded.last_exposed_at),
           best_score      = greatest(relevance.best_score, excluded.best_score),
           -- What was sent began at the prior; the stored score takes the place of the prior.
           smoothed_score  = least(greatest(
                                 excluded.smoothed_score
                                 + (1 - %(weight)s::float8) ^ excluded.exposures
                                 * (relevance.smoothed_score - %(prior)s),
                             0), 1)
"""


async def record(
    connection: Connection, namespace: str, seen: Sequence[Exposure], *, at: datetime
) -> int:
    """Add exposures to the documents that still exist; returns the number of documents.

    A document that is being rewritten or deleted at this moment is left out, so that this never
    waits for a writer.
    """
    cursor = await connection.execute(
        RECORD,
        {
            "namespace": namespace,
            "at": at,
            "weight": WEIGHT,
            "prior": PRIOR,
            **{
                field: [getattr(one, field) for one in seen] for field in Exposure.__struct_fields__
            },
        },
    )
    return cursor.rowcount


MARK = """
    /* indexd:forgetting.relevance.mark */
    UPDATE indexd.relevance
       SET irrelevant_since = CASE WHEN irrelevant_since IS NULL THEN %(at)s END
      FROM indexd.documents
     WHERE relevance.namespace = %(namespace)s
       AND relevance.doc_id = ANY(%(doc_ids)s)
       AND documents.namespace = %(namespace)s
       AND documents.doc_id = relevance.doc_id
       AND CASE
               -- Not marked: mark it where enough searches found it and none found it well.
               WHEN irrelevant_since IS NULL
                   THEN judged_useful IS NOT TRUE
                    AND best_score  <  %(min_score)s
                    AND exposures   >= %(min_exposures)s
                    AND days        >= %(min_days)s
                    AND ingested_at <= %(old_enough)s
               -- Marked: unmark it where a search has found it well since.
               ELSE judged_useful IS NOT FALSE
                    AND best_score  >= %(min_score)s
           END
"""


async def mark(
    connection: Connection,
    namespace: str,
    doc_ids: Sequence[str],
    semantic: Semantic,
    *,
    at: datetime,
) -> None:
    """Mark those of the documents that are irrelevant now, and unmark those that are not.

    The last feedback on a document outweighs what was counted.
    """
    await connection.execute(
        MARK,
        {
            "namespace": namespace,
            "doc_ids": list(doc_ids),
            "at": at,
            "min_score": semantic.min_score,
            "min_exposures": semantic.min_exposures,
            "min_days": semantic.min_days,
            "old_enough": before(at, semantic.min_age_seconds),
        },
    )


FEEDBACK = f"""
    /* indexd:forgetting.relevance.feedback */
    WITH existing AS (
        SELECT doc_id
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND doc_id = %(doc_id)s
           AND {live()}
           FOR KEY SHARE
    )
    INSERT INTO indexd.relevance AS relevance (
        namespace, doc_id, exposures, hits, days, last_exposed_at, best_score,
        smoothed_score, judged_useful, irrelevant_since
    )
    SELECT %(namespace)s, doc_id, 0, 0, 0, %(at)s, 0,
           %(prior)s + %(weight)s::float8 * (%(useful)s::bool::int - %(prior)s),
           %(useful)s,
           CASE WHEN NOT %(useful)s THEN %(at)s::timestamptz END
      FROM existing
    ON CONFLICT (namespace, doc_id) DO UPDATE
       SET smoothed_score   = relevance.smoothed_score
                            + %(weight)s::float8
                            * (%(useful)s::bool::int - relevance.smoothed_score),
           judged_useful    = excluded.judged_useful,
           irrelevant_since = CASE
                                  WHEN excluded.judged_useful THEN NULL
                                  ELSE coalesce(relevance.irrelevant_since, %(at)s)
                              END
"""


async def record_feedback(
    connection: Connection, namespace: str, doc_id: str, *, useful: bool, at: datetime
) -> bool:
    """Unmark a document as useful, or mark it as irrelevant at once; False if there is none.

    In the smoothed score, feedback counts like one exposure with a score of 1 or 0.
    """
    cursor = await connection.execute(
        FEEDBACK,
        {
            "namespace": namespace,
            "doc_id": doc_id,
            "useful": useful,
            "at": at,
            "prior": PRIOR,
            "weight": WEIGHT,
        },
    )
    return cursor.rowcount == 1


class Evidence(msgspec.Struct, frozen=True):
    """Why a document is marked irrelevant. Scores are cosines in 0..1."""

    doc_id: Annotated[str, Meta(description="Id of the document")]
    namespace: Annotated[str, Meta(description="Namespace of the document")]
    ingested_at: Annotated[datetime, Meta(description="Time that the age counts from, UTC")]
    irrelevant_since: Annotated[datetime, Meta(description="Time it was marked, UTC")]
    exposures: Annotated[int, Meta(description="Searches that had it among their results")]
    hits: Annotated[
        int, Meta(description="Those of them that found it well: with a cosine of 0.5 or more")
    ]
    days: Annotated[
        int, Meta(description="Different days on which searches had it among their results")
    ]
    last_exposed_at: Annotated[datetime, Meta(description="Time of the last such search, UTC")]
    best_score: Annotated[float, Meta(description="Best cosine it ever reached, from 0 to 1")]
    smoothed_score: Annotated[float, Meta(description="Moving average of its cosines, from 0 to 1")]
    judged_useful: Annotated[
        bool | None, Meta(description="What feedback said last; null where there was none")
    ]


class _Marked(msgspec.Struct, frozen=True):
    """`count` is the number of all marked documents, also of those beyond the limit."""

    doc_id: str
    namespace: str
    ingested_at: datetime
    irrelevant_since: datetime
    exposures: int
    hits: int
    days: int
    last_exposed_at: datetime
    best_score: float
    smoothed_score: float
    judged_useful: bool | None
    count: int

    def evidence(self) -> Evidence:
        return Evidence(**{name: getattr(self, name) for name in Evidence.__struct_fields__})


IRRELEVANT = f"""
    /* indexd:forgetting.relevance.irrelevant */
    SELECT doc_id, namespace, ingested_at, irrelevant_since, exposures, hits, days,
           last_exposed_at, best_score, smoothed_score, judged_useful,
           count(*) OVER () AS count
      FROM indexd.relevance
      JOIN indexd.documents USING (namespace, doc_id)
     WHERE namespace = %(namespace)s
       AND irrelevant_since IS NOT NULL
       AND {live()}
     ORDER BY irrelevant_since, doc_id
     LIMIT %(limit)s
"""


async def irrelevant(
    connection: Connection, namespace: str, *, limit: int, at: datetime
) -> tuple[int, list[Evidence]]:
    """The number of marked documents of a namespace, and those that are marked longest."""
    found = await rows.every(
        connection, _Marked, IRRELEVANT, {"namespace": namespace, "limit": limit, "at": at}
    )
    return next((row.count for row in found), 0), [row.evidence() for row in found]
