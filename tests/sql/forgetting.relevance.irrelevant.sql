/* indexd:forgetting.relevance.irrelevant */
SELECT doc_id, namespace, ingested_at, irrelevant_since, exposures, hits, days,
       last_exposed_at, best_score, smoothed_score, judged_useful,
       count(*) OVER () AS count
  FROM indexd.relevance
  JOIN indexd.documents USING (namespace, doc_id)
 WHERE namespace = %(namespace)s
   AND irrelevant_since IS NOT NULL
   AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
 ORDER BY irrelevant_since, doc_id
 LIMIT %(limit)s
