/* indexd:writing.upsert.renew */
UPDATE indexd.documents AS document
   SET expires_at = sent.expires_at,
       version    = document.version + 1
  FROM unnest(%(doc_ids)s::text[], %(expires_at)s::timestamptz[]) AS sent (doc_id, expires_at)
 WHERE document.namespace = %(namespace)s
   AND document.doc_id = sent.doc_id
