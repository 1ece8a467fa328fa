/* indexd:forgetting.expiry.lock */
SELECT doc_id
  FROM indexd.documents
 WHERE namespace = %(namespace)s
   AND expires_at <= %(at)s
   AND (%(doc_ids)s::text[] IS NULL OR doc_id = ANY(%(doc_ids)s))
 ORDER BY doc_id
   FOR UPDATE
