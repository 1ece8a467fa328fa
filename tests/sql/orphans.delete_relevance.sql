/* indexd:orphans.delete_relevance */
DELETE FROM indexd.relevance
 WHERE namespace = %(namespace)s
   AND NOT EXISTS (
        SELECT 1
          FROM indexd.documents
         WHERE documents.namespace = relevance.namespace
           AND documents.doc_id = relevance.doc_id
       )
