/* indexd:forgetting.lifecycle.faded */
SELECT ingested_at,
       greatest(date_part('epoch', %(at)s - ingested_at), 0) AS age_seconds,
       half_life AS half_life_seconds,
       indexd.decay(ingested_at, half_life, %(at)s) AS decay_factor,
       coalesce(smoothed_score, %(prior)s) AS relevance,
       irrelevant_since,
       expires_at,
       (SELECT documents FROM indexd.namespaces WHERE namespace = %(namespace)s)
       - (
            SELECT count(*)
              FROM indexd.documents AS expired
             WHERE expired.namespace = %(namespace)s
               AND expired.expires_at <= %(at)s
       ) AS documents
  FROM indexd.documents
 CROSS JOIN LATERAL (
        SELECT coalesce(half_life_seconds, %(half_life)s::float8) AS half_life
       ) AS effective
  LEFT JOIN indexd.relevance USING (namespace, doc_id)
 WHERE namespace = %(namespace)s
   AND doc_id = %(doc_id)s
