/* indexd:search.centre */
        SELECT avg(embedding) AS mean,
               (
                SELECT embedding
                  FROM indexd.chunks
                 WHERE namespace = %(namespace)s
                   AND doc_id = %(doc_id)s
                 ORDER BY ordinal
                 LIMIT 1
               ) AS first
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND doc_id = %(doc_id)s
