/* indexd:writing.upsert.look_up */
SELECT doc_id, digest, ingested_at, chunk_count, version, expires_at
  FROM indexd.documents
 WHERE namespace = %(namespace)s
   AND doc_id = ANY(%(doc_ids)s)
 ORDER BY doc_id
