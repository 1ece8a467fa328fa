/* indexd:search.centre */
        SELECT count(*) AS chunks,
               avg(embedding) AS mean,
               (
                SELECT embedding
                  FROM indexd.chunks
                 WHERE namespace = %(namespace)s
                   AND doc_id = %(doc_id)s
                   AND embedding IS NOT NULL
                 ORDER BY ordinal
                 LIMIT 1
               ) AS first
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND doc_id = %(doc_id)s
           AND EXISTS (
                SELECT 1
                  FROM indexd.documents AS document
                 WHERE document.namespace = %(namespace)s
                   AND document.doc_id = %(doc_id)s
                   AND (document.expires_at IS NULL OR document.expires_at > %(at)s::timestamptz)
               )
