/* indexd:writing.upsert.delete_chunks */
WITH deleted_fields AS (
    DELETE FROM indexd.chunk_fields
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(doc_id)s)
)
DELETE FROM indexd.chunks
 WHERE namespace = %(namespace)s
   AND doc_id = ANY(%(doc_id)s)
