/* indexd:writing.stored_vectors */
SELECT text, embedding
  FROM indexd.chunks
 WHERE namespace = %(namespace)s
   AND doc_id = ANY(%(doc_ids)s)
   AND text = ANY(%(texts)s)
   AND embedding IS NOT NULL
