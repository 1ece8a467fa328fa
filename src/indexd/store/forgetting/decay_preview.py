"""How far the documents of a namespace have faded, or would have: nothing is changed."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from indexd.db.pool import Connection
from indexd.store import rows

CURVE_POINTS = 50
"""Steps of age between the newest and the oldest document, as a chart shows them."""


class Preview(msgspec.Struct, frozen=True):
    """A document and how far it has faded."""

    doc_id: Annotated[str, Meta(description="Id of the document")]
    namespace: Annotated[str, Meta(description="Namespace of the document")]
    ingested_at: Annotated[datetime, Meta(description="Time that the age counts from, UTC")]
    age_seconds: Annotated[float, Meta(description="Age in seconds, 0 or more")]
    decay_factor: Annotated[float, Meta(description="What scores are multiplied with, from 0 to 1")]
    expires_at: Annotated[
        datetime | None,
        Meta(description="Time from which the document is hidden, UTC; null: never"),
    ]


class Point(msgspec.Struct, frozen=True):
    """One point of the curve of decay over age."""

    age_seconds: Annotated[float, Meta(description="Age in seconds")]
    decay_factor: Annotated[
        float, Meta(description="Decay at this age under the half-life applied")
    ]
    documents: Annotated[
        int, Meta(description="Documents older than the point before and no older than this one")
    ]


class Decay(msgspec.Struct, frozen=True):
    total_documents: int
    previews: list[Preview]
    curve: list[Point]


MOST_FADED = """
    /* indexd:forgetting.decay_preview.most_faded */
    SELECT doc_id,
           namespace,
           ingested_at,
           greatest(date_part('epoch', %(at)s - ingested_at), 0) AS age_seconds,
           indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ) AS decay_factor,
           expires_at
      FROM indexd.documents
     WHERE namespace = %(namespace)s
     ORDER BY decay_factor, ingested_at, doc_id
     LIMIT %(limit)s
"""

CURVE = """
    /* indexd:forgetting.decay_preview.curve */
    WITH ages AS (
        SELECT greatest(date_part('epoch', %(at)s - ingested_at), 0) AS age_seconds
          FROM indexd.documents
         WHERE namespace = %(namespace)s
    ),
    span AS (
        SELECT greatest(max(age_seconds), 1) AS seconds
          FROM ages
    ),
    counted AS (
        SELECT ceil(age_seconds / seconds * %(points)s)::int AS point,
               count(*) AS documents
          FROM ages
         CROSS JOIN span
         GROUP BY point
    )
    SELECT seconds * point / %(points)s AS age_seconds,
           indexd.decay(
               %(at)s - seconds * point / %(points)s * interval '1 second',
               %(half_life)s::float8,
               %(at)s
           ) AS decay_factor,
           coalesce(counted.documents, 0) AS documents
      FROM span
     CROSS JOIN generate_series(0, %(points)s) AS point
      LEFT JOIN counted USING (point)
     WHERE seconds IS NOT NULL
     ORDER BY point
"""


async def preview(
    connection: Connection,
    namespace: str,
    *,
    half_life_seconds: float | None,
    at: datetime,
    limit: int,
) -> Decay:
    """The most faded documents first; a document's own half-life overrides the one given."""
    values = {"namespace": namespace, "half_life": half_life_seconds, "at": at}
    previews = await rows.every(connection, Preview, MOST_FADED, values | {"limit": limit})
    curve = await rows.every(connection, Point, CURVE, values | {"points": CURVE_POINTS})
    total = sum(point.documents for point in curve)
    return Decay(total, previews, curve if total else [])
