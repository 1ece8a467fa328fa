/* indexd:forgetting.relevance.feedback */
WITH existing AS (
    SELECT doc_id
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND doc_id = %(doc_id)s
       AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
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
