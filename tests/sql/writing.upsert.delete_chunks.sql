/* indexd:writing.upsert.delete_chunks */
DELETE FROM indexd.chunks
 WHERE namespace = %(namespace)s
   AND doc_id = ANY(%(doc_id)s)
