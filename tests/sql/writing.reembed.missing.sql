/* indexd:writing.reembed.missing */
SELECT doc_id, ordinal, text, sha256(convert_to(chunks.text, 'UTF8')) AS digest
  FROM indexd.chunks
 WHERE namespace = %(namespace)s
   AND (doc_id, ordinal) > (%(doc_id)s, %(ordinal)s)
   AND (embedding IS NULL OR NOT %(fills)s)
   AND NOT EXISTS (
            SELECT
              FROM indexd.reembedded
             WHERE reembedded.namespace = %(namespace)s
               AND reembedded.text_digest = sha256(convert_to(chunks.text, 'UTF8'))
       )
 ORDER BY doc_id, ordinal
 LIMIT %(limit)s
