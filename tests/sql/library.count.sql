/* indexd:library.count */
SELECT count(*) AS documents,
       coalesce(sum(document.chunk_count), 0)::bigint AS chunks
  FROM indexd.documents AS document
 WHERE document.namespace = %(namespace)s
   AND (document.expires_at IS NULL OR document.expires_at > %(at)s::timestamptz)
   AND true
