/* indexd:library.by_ids */
SELECT document.doc_id,
       document.version,
       document.created_at,
       document.ingested_at,
       document.expires_at,
       document.half_life_seconds,
       document.meta,
       document.source_ref_origin      AS origin,
       document.source_ref_id          AS id,
       document.source_ref_offset      AS offset,
       document.source_ref_trust_level AS trust_level,
       document.source_ref_injected_by AS injected_by,
       ARRAY(
            SELECT DISTINCT tag
              FROM indexd.chunks AS chunk
             CROSS JOIN unnest(chunk.tags) AS tag
             WHERE chunk.namespace = %(namespace)s
               AND chunk.doc_id = document.doc_id
       ) AS tags,
       octet_length(document.meta::text) + 256
       + (
            SELECT coalesce(sum(octet_length(chunk.text) + octet_length(chunk.meta::text) + 12 * coalesce(vector_dims(chunk.embedding), 0) + 64), 0)::bigint
              FROM indexd.chunks AS chunk
             WHERE chunk.namespace = %(namespace)s
               AND chunk.doc_id = document.doc_id
       ) AS bytes
  FROM indexd.documents AS document
 WHERE document.namespace = %(namespace)s
   AND document.doc_id = ANY(%(doc_ids)s::text[])
   AND (document.expires_at IS NULL OR document.expires_at > %(at)s::timestamptz)
