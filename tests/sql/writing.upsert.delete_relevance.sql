/* indexd:writing.upsert.delete_relevance */
DELETE FROM indexd.relevance
 WHERE namespace = %(namespace)s
   AND doc_id = ANY(%(doc_id)s)
