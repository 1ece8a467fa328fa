/* indexd:forgetting.retention.expired */
SELECT doc_id, ingested_at, 'ttl' AS reason, indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ) AS score, count(*) OVER () AS count
  FROM indexd.documents
 WHERE namespace = %(namespace)s
   AND ingested_at < %(expires_before)s
   AND doc_id <> ALL(%(protected)s::text[])
 ORDER BY ingested_at, doc_id
 LIMIT %(listed)s
