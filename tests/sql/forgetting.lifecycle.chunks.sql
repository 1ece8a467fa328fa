/* indexd:forgetting.lifecycle.chunks */
SELECT chunk_id, text, meta, NULL AS embedding
  FROM indexd.chunks
 WHERE namespace = %(namespace)s
   AND doc_id = %(doc_id)s
 ORDER BY ordinal
