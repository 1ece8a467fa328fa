/* indexd:forgetting.decay_preview.most_faded */
SELECT doc_id,
       namespace,
       ingested_at,
       greatest(date_part('epoch', %(at)s - ingested_at), 0) AS age_seconds,
       indexd.decay(
           ingested_at, coalesce(half_life_seconds, %(half_life)s::float8), %(at)s
       ) AS decay_factor,
       expires_at
  FROM indexd.documents
 WHERE namespace = %(namespace)s
 ORDER BY decay_factor, ingested_at, doc_id
 LIMIT %(limit)s
