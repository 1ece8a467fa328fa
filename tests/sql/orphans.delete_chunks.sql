/* indexd:orphans.delete_chunks */
DELETE FROM indexd.chunks
 WHERE namespace = %(namespace)s
   AND NOT EXISTS (
        SELECT 1
          FROM indexd.documents
         WHERE documents.namespace = chunks.namespace
           AND documents.doc_id = chunks.doc_id
       )
