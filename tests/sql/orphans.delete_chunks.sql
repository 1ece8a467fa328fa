/* indexd:orphans.delete_chunks */
WITH deleted_fields AS (
    DELETE FROM indexd.chunk_fields
     WHERE namespace = %(namespace)s
       AND NOT EXISTS (
        SELECT 1
          FROM indexd.documents
         WHERE documents.namespace = chunk_fields.namespace
           AND documents.doc_id = chunk_fields.doc_id
       )
)
DELETE FROM indexd.chunks
 WHERE namespace = %(namespace)s
   AND NOT EXISTS (
        SELECT 1
          FROM indexd.documents
         WHERE documents.namespace = chunks.namespace
           AND documents.doc_id = chunks.doc_id
       )
