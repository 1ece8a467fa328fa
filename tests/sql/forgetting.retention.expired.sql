/* indexd:forgetting.retention.expired */
SELECT doc_id, ingested_at, 'ttl' AS reason, indexd.decay(
               ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
           ) AS score, count(*) OVER () AS count
  FROM (
        SELECT doc_id, ingested_at, half_life_seconds, expires_at
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND ingested_at < %(expires_before)s
        UNION
        SELECT doc_id, ingested_at, half_life_seconds, expires_at
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND expires_at <= %(at)s
       ) AS due
 WHERE doc_id <> ALL(%(protected)s::text[])
 -- Those that expired by their own time leave before the write, the others after it.
 ORDER BY (due.expires_at IS NULL OR due.expires_at > %(at)s::timestamptz), ingested_at, doc_id
 LIMIT %(listed)s
