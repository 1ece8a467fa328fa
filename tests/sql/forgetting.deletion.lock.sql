/* indexd:forgetting.deletion.lock */
SELECT doc_id, ingested_at
  FROM indexd.documents
 WHERE namespace = %(namespace)s
   AND doc_id = ANY(%(doc_ids)s)
 ORDER BY doc_id
   FOR UPDATE
