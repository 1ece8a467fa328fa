/* indexd:forgetting.retention.surplus */
WITH RECURSIVE
-- Every document with what searches showed of it. Those marked irrelevant have another reason.
ranked AS (
    SELECT doc_id,
           ingested_at,
           indexd.score(
               coalesce(smoothed_score, %(prior)s), ingested_at,
               coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ) AS score,
           CASE WHEN irrelevant_since IS NULL THEN 'retention' ELSE 'semantic' END AS reason
      FROM indexd.documents
      LEFT JOIN (
            SELECT doc_id AS met, smoothed_score, irrelevant_since
              FROM indexd.relevance
             WHERE namespace = %(namespace)s
           ) AS relevance
        ON met = doc_id
     WHERE namespace = %(namespace)s
       AND (
           -- Not expired, not too old already, older than the grace, and not just written.
           (%(expires_before)s::timestamptz IS NULL OR ingested_at >= %(expires_before)s)
           AND ingested_at <= %(graced_after)s
           AND documents.doc_id <> ALL(%(protected)s::text[])
           AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
       )
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
