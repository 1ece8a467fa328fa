/* indexd:forgetting.purge_rank */
WITH RECURSIVE
placed AS NOT MATERIALIZED (
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
       AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
),
own AS MATERIALIZED (
    SELECT * FROM placed WHERE doc_id = %(doc_id)s
),
counted AS (
    SELECT
           count(*) FILTER (WHERE (placed.reason = 'retention', placed.score, placed.ingested_at, placed.doc_id) < (own.reason = 'retention', own.score, own.ingested_at, own.doc_id)) AS before,
           count(*) FILTER (
               WHERE coalesce(placed.ingested_at < %(expires_before)s::timestamptz, false)
                  OR ((placed.reason = 'retention', placed.score, placed.ingested_at, placed.doc_id) < (own.reason = 'retention', own.score, own.ingested_at, own.doc_id) AND placed.ingested_at <= %(graced_after)s)
           ) AS leaving_before
      FROM placed
     CROSS JOIN own
)
SELECT before,
       leaving_before,
       own.reason,
       NOT coalesce(own.ingested_at < %(expires_before)s::timestamptz, false) AND own.ingested_at <= %(graced_after)s AS may_leave
  FROM own
 CROSS JOIN counted
