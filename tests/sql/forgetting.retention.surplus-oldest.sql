/* indexd:forgetting.retention.surplus */
WITH RECURSIVE
-- The oldest leave first: an index has this order.
ranked AS (
    SELECT doc_id, ingested_at, indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ) AS score, 'retention' AS reason
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND (
           -- Not expired, not too old already, older than the grace, and not just written.
           (%(expires_before)s::timestamptz IS NULL OR ingested_at >= %(expires_before)s)
           AND ingested_at <= %(graced_after)s
           AND documents.doc_id <> ALL(%(protected)s::text[])
           AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
       )
     ORDER BY ingested_at, doc_id
     LIMIT %(excess)s
),
surplus AS (
    SELECT *
      FROM ranked
     ORDER BY reason = 'retention', ingested_at, doc_id
     LIMIT %(excess)s
)
-- The count is of all of them, the list may be shorter.
SELECT doc_id, ingested_at, reason, score, count(*) OVER () AS count
  FROM surplus
 ORDER BY reason = 'retention', ingested_at, doc_id
 LIMIT %(listed)s
