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
