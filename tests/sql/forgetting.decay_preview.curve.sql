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
