/* indexd:writing.reembed.put_in_place */
UPDATE indexd.chunks
   SET embedding = reembedded.embedding
  FROM indexd.reembedded
 WHERE chunks.namespace = %(namespace)s
   AND reembedded.namespace = %(namespace)s
   AND reembedded.text_digest = sha256(convert_to(chunks.text, 'UTF8'))
   AND (chunks.embedding IS NULL OR NOT %(fills)s)
