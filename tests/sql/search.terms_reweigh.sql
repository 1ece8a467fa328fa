/* indexd:search.terms_reweigh */
UPDATE indexd.chunk_fields AS fields
   SET terms  = weighed.terms,
       lex    = weighed.lex,
       length = weighed.length
  FROM indexd.chunks AS chunk
 CROSS JOIN LATERAL indexd.weighed(
        chunk.namespace, chunk.text,
        (SELECT words_average FROM indexd.namespaces WHERE namespace = %(namespace)s)
       ) AS weighed
 WHERE fields.namespace = %(namespace)s
   AND chunk.namespace = %(namespace)s
   AND chunk.doc_id = fields.doc_id
   AND chunk.ordinal = fields.ordinal
   AND (fields.doc_id, fields.ordinal) > (%(doc_id)s, %(ordinal)s)
   AND (fields.doc_id, fields.ordinal) <= (%(last_doc_id)s, %(last_ordinal)s)
