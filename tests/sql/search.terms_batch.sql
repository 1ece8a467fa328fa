/* indexd:search.terms_batch */
SELECT doc_id, ordinal
  FROM (
        SELECT doc_id, ordinal
          FROM indexd.chunk_fields
         WHERE namespace = %(namespace)s
           AND (doc_id, ordinal) > (%(doc_id)s, %(ordinal)s)
         ORDER BY doc_id, ordinal
         LIMIT %(batch)s
       ) AS batch
 ORDER BY doc_id DESC, ordinal DESC
 LIMIT 1
