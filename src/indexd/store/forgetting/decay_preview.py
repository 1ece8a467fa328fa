"""How far the documents of a namespace have faded, or would have: looking only."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from indexd.db.pool import Connection

CURVE_POINTS = 50


class Preview(msgspec.Struct, frozen=True):
    """A document and how far it has faded."""

    doc_id: Annotated[str, Meta(description="Id of the document")]
    namespace: Annotated[str, Meta(description="Namespace of the document")]
    ingested_at: Annotated[datetime, Meta(description="Time that the age counts from, UTC")]
    age_seconds: Annotated[float, Meta(description="Age in seconds, 0 or more")]
    decay_factor: Annotated[float, Meta(description="What scores are multiplied with, from 0 to 1")]


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


async def preview(
    connection: Connection,
    namespace: str,
    *,
    half_life_seconds: float | None,
    at: datetime,
    limit: int,
) -> Decay:
    """The most faded documents first; a document's own half-life overrides the one given."""
    values = {
        "namespace": namespace,
        "half_life": half_life_seconds,
        "at": at,
        "limit": limit,
        "points": CURVE_POINTS,
    }
    cursor = await connection.execute(
        """
        SELECT doc_id,
               namespace,
               ingested_at,
               greatest(date_part('epoch', %(at)s - ingested_at), 0) AS age_seconds,
               indexd.decay(
                   ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
               ) AS decay_factor
          FROM indexd.documents
         WHERE namespace = %(namespace)s
         ORDER BY decay_factor, ingested_at, doc_id
         LIMIT %(limit)s
        """,
        values,
    )
    previews = [Preview(*row) for row in await cursor.fetchall()]
    cursor = await connection.execute(
        """
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
               ),
               coalesce(counted.documents, 0)
          FROM span
         CROSS JOIN generate_series(0, %(points)s) AS point
          LEFT JOIN counted USING (point)
         WHERE seconds IS NOT NULL
         ORDER BY point
        """,
        values,
    )
    curve = [Point(*row) for row in await cursor.fetchall()]
    total = sum(point.documents for point in curve)
    return Decay(total, previews, curve if total else [])
