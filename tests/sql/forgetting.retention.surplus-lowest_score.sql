/* indexd:forgetting.retention.surplus */
WITH RECURSIVE
-- The different half-lives that documents of the namespace have of their own, ascending. Each
-- step finds the next one in an index. There is one step beyond the last, whose half-life is
-- NULL, and none beyond 1,000 half-lives.
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
       AND place <= 1000
),
-- Among documents of one half-life, the oldest have decayed most, and `excess` of each are
-- enough. First those that take the half-life of the policy.
oldest AS (
    (
        SELECT doc_id, ingested_at, half_life_seconds
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND (
           -- Not expired, not too old already, older than the grace, and not just written.
           (%(expires_before)s::timestamptz IS NULL OR ingested_at >= %(expires_before)s)
           AND ingested_at <= %(graced_after)s
           AND documents.doc_id <> ALL(%(protected)s::text[])
           AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
       )
           AND half_life_seconds IS NULL
         ORDER BY ingested_at, doc_id
         LIMIT %(excess)s
    )
    UNION ALL
    -- Then those of each half-life of their own, if there are few different ones.
    SELECT of_one_half_life.*
      FROM half_lives
     CROSS JOIN LATERAL (
        SELECT doc_id, ingested_at, half_life_seconds
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND (
           -- Not expired, not too old already, older than the grace, and not just written.
           (%(expires_before)s::timestamptz IS NULL OR ingested_at >= %(expires_before)s)
           AND ingested_at <= %(graced_after)s
           AND documents.doc_id <> ALL(%(protected)s::text[])
           AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
       )
           AND half_life_seconds = half_lives.half_life_seconds
         ORDER BY ingested_at, doc_id
         LIMIT %(excess)s
           ) AS of_one_half_life
     WHERE (SELECT max(place) FROM half_lives) <= 1000
    UNION ALL
    -- If there are many: all of these, in one pass.
    SELECT doc_id, ingested_at, half_life_seconds
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND (
           -- Not expired, not too old already, older than the grace, and not just written.
           (%(expires_before)s::timestamptz IS NULL OR ingested_at >= %(expires_before)s)
           AND ingested_at <= %(graced_after)s
           AND documents.doc_id <> ALL(%(protected)s::text[])
           AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
       )
       AND half_life_seconds IS NOT NULL
       AND (SELECT max(place) FROM half_lives) > 1000
),
ranked AS (
    SELECT doc_id, ingested_at, indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ) AS score, 'retention' AS reason
      FROM oldest
),
surplus AS (
    SELECT *
      FROM ranked
     ORDER BY reason = 'retention', score, ingested_at, doc_id
     LIMIT %(excess)s
)
-- The count is of all of them, the list may be shorter.
SELECT doc_id, ingested_at, reason, score, count(*) OVER () AS count
  FROM surplus
 ORDER BY reason = 'retention', score, ingested_at, doc_id
 LIMIT %(listed)s
