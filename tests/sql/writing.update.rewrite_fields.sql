/* indexd:writing.update.rewrite_fields */
UPDATE indexd.chunk_fields AS fields
   SET half_life_seconds = document.half_life_seconds,
       tags              = indexd.merged_tags(chunk.tags, indexd.tags_of(document.meta)),
       meta              = document.meta || chunk.meta
  FROM indexd.documents AS document
  JOIN indexd.chunks AS chunk
    ON chunk.namespace = %(namespace)s
   AND chunk.doc_id = document.doc_id
 WHERE document.namespace = %(namespace)s
   AND document.doc_id = ANY(%(doc_ids)s)
   AND fields.namespace = %(namespace)s
   AND fields.doc_id = chunk.doc_id
   AND fields.ordinal = chunk.ordinal
