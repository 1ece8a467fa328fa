/* indexd:orphans.delete_fields */
DELETE FROM indexd.chunk_fields
 WHERE namespace = %(namespace)s
   AND NOT EXISTS (
        SELECT 1
          FROM indexd.chunks
         WHERE chunks.namespace = chunk_fields.namespace
           AND chunks.doc_id = chunk_fields.doc_id
           AND chunks.ordinal = chunk_fields.ordinal
       )
