/* indexd:writing.upsert.returned */
SELECT doc_id
  FROM indexd.forgotten_documents AS forgotten
  JOIN unnest(%(doc_ids)s::text[], %(versions)s::bigint[]) AS stored (doc_id, version)
 USING (doc_id)
 WHERE forgotten.namespace = %(namespace)s
   AND forgotten.version >= stored.version
