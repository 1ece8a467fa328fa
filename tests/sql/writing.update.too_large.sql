/* indexd:writing.update.too_large */
SELECT doc_id, chunk_count, bytes, "values", segments
  FROM (
        SELECT document.doc_id,
               document.chunk_count,
               octet_length(changed.meta::text) AS bytes,
               -- A value is two bytes at least, and few are worth counting.
               CASE
                   WHEN octet_length(changed.meta::text) < 2 * %(meta_values)s THEN 0
                   ELSE (
                        SELECT count(*) - 1
                          FROM jsonb_path_query(changed.meta, 'strict $.**')
                   )
               END AS "values",
               (
                SELECT coalesce(
                           sum(1 + length(tag) - length(replace(tag, '/', ''))), 0
                       )::bigint
                  FROM unnest(indexd.tags_of(changed.meta)) AS tag
               ) AS segments
          FROM indexd.documents AS document
         CROSS JOIN LATERAL (SELECT (document.meta - %(removed)s::text[]) || %(merged)s::jsonb AS meta) AS changed
         WHERE document.namespace = %(namespace)s
           AND document.doc_id = ANY(%(chosen)s)
       ) AS document
 WHERE bytes > %(meta_bytes)s
    OR "values" > %(meta_values)s
    OR bytes::bigint * chunk_count > %(merged_bytes)s
    OR segments * chunk_count > %(segments)s
 ORDER BY doc_id
 LIMIT 1
