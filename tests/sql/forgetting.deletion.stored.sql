/* indexd:forgetting.deletion.stored */
SELECT doc_id
  FROM indexd.documents
 WHERE namespace = %(namespace)s
   AND doc_id = ANY(%(doc_ids)s)
   AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
