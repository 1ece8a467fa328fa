/* indexd:orphans.mark_incomplete */
UPDATE indexd.documents
   SET chunk_count = incomplete.chunks,
       -- Without a digest it is not taken for unchanged when it is sent again.
       digest      = ''
  FROM (
    SELECT documents.namespace, documents.doc_id, count(chunks.doc_id)::int AS chunks
      FROM indexd.documents
      LEFT JOIN indexd.chunks USING (namespace, doc_id)
     GROUP BY documents.namespace, documents.doc_id, documents.chunk_count
    HAVING count(chunks.doc_id) <> documents.chunk_count
       ) AS incomplete
 WHERE documents.namespace = %(namespace)s
   AND incomplete.namespace = %(namespace)s
   AND incomplete.doc_id = documents.doc_id
