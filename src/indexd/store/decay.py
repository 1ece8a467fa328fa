"""How far the documents of a namespace have faded, or would have: looking only."""

from datetime import datetime

import msgspec

from indexd.db import Connection

CURVE_POINTS = 50


class Preview(msgspec.Struct, frozen=True):
    doc_id: str
    namespace: str
    ingested_at: datetime
    age_seconds: float
    decay_factor: float


class Point(msgspec.Struct, frozen=True):
    """`documents` are those older than the point before and no older than this one."""

    age_seconds: float
    decay_factor: float
    documents: int


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
