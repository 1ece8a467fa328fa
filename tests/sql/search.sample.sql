/* indexd:search.sample */
    SELECT avg(matches::int)::float8
      FROM unnest(%(since)s::timestamptz[]) AS moment (since)
     CROSS JOIN LATERAL (
            SELECT (coalesce((
        SELECT true
          FROM indexd.chunk_fields AS fields
         WHERE fields.namespace = %(namespace)s
           AND fields.doc_id = chunks.doc_id
           AND fields.ordinal = chunks.ordinal
           AND NOT coalesce(indexd.comparable((fields.meta -> %(where_0)s::text)) = indexd.comparable(%(where_1)s::jsonb), false)
       ), false) AND NOT EXISTS (
        SELECT 1
          FROM indexd.documents AS expired
         WHERE expired.namespace = %(namespace)s
           AND expired.doc_id = chunks.doc_id
           AND expired.expires_at <= %(unexpired_at)s::timestamptz
       )) AS matches
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND ingested_at >= moment.since
             ORDER BY ingested_at
             LIMIT %(each)s
           ) AS sampled
