/* indexd:search.terms_due */
SELECT *
  FROM (
        SELECT namespace,
               greatest(
                   abs(chunks - coalesce(words_chunks, 0)), chunks_removed - words_removed
               ) > %(stale)s * chunks AS count,
               EXISTS (
                SELECT 1
                  FROM indexd.chunk_fields
                 WHERE chunk_fields.namespace = namespaces.namespace
                   AND lex IS NULL
               ) AS unweighed,
               words_reweighing AS reweighing,
               words_average    AS average
          FROM indexd.namespaces
         WHERE chunks >= %(enough)s
            OR words_counted_at IS NOT NULL
       ) AS looked_at
 WHERE count OR unweighed OR reweighing
 ORDER BY namespace
