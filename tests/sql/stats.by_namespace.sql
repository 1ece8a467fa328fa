/* indexd:stats.by_namespace */
SELECT namespaces.namespace,
       namespaces.documents,
       namespaces.chunks,
       (
            SELECT count(*)
              FROM indexd.documents
             WHERE documents.namespace = namespaces.namespace
               AND documents.expires_at <= %(at)s
       ) AS expired,
       namespaces.dimension,
       oldest.ingested_at AS oldest,
       newest.ingested_at AS newest,
       coalesce(sample.bytes * namespaces.chunks, 0)::bigint AS bytes,
       namespaces.words_counted_at
  FROM indexd.namespaces
 CROSS JOIN LATERAL (
        SELECT ingested_at
          FROM indexd.chunks
         WHERE chunks.namespace = namespaces.namespace
         ORDER BY ingested_at
         LIMIT 1
       ) AS oldest
 CROSS JOIN LATERAL (
        SELECT ingested_at
          FROM indexd.chunks
         WHERE chunks.namespace = namespaces.namespace
         ORDER BY ingested_at DESC
         LIMIT 1
       ) AS newest
 CROSS JOIN LATERAL (
        SELECT avg(pg_column_size(newest_chunks.*)) AS bytes
          FROM (
                SELECT *
                  FROM indexd.chunks
                 WHERE chunks.namespace = namespaces.namespace
                 ORDER BY ingested_at DESC
                 LIMIT 100
               ) AS newest_chunks
       ) AS sample
 WHERE namespaces.documents > 0
 ORDER BY namespaces.namespace
