/* indexd:library.chunks */
SELECT doc_id, chunk_id, text, meta, embedding
  FROM indexd.chunks
 WHERE namespace = %(namespace)s
   AND doc_id = ANY(%(doc_ids)s::text[])
 ORDER BY doc_id, ordinal
