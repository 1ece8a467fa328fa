/* indexd:forgetting.lifecycle.document */
SELECT ingested_at,
       half_life_seconds,
       meta,
       source_ref_origin      AS origin,
       source_ref_id          AS id,
       source_ref_offset      AS offset,
       source_ref_trust_level AS trust_level,
       source_ref_injected_by AS injected_by
  FROM indexd.documents
 WHERE namespace = %(namespace)s
   AND doc_id = %(doc_id)s
