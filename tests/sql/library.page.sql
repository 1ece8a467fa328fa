/* indexd:library.page */
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
       + 0 AS bytes
  FROM indexd.documents AS document
 WHERE document.namespace = %(namespace)s
   AND (document.expires_at IS NULL OR document.expires_at > %(at)s::timestamptz)
   AND (document.doc_id = ANY(%(doc_ids)s::text[]) AND document.ingested_at > %(ingested_after)s::timestamptz AND document.ingested_at < %(ingested_before)s::timestamptz AND EXISTS (
        SELECT 1
          FROM indexd.chunk_fields AS fields
         WHERE fields.namespace = %(namespace)s
           AND fields.doc_id = document.doc_id
           AND (
    fields.filter_keys && indexd.filter_keys_of(
        %(namespace)s, 'tag', %(tags)s::text[]
    )
    AND EXISTS (
        SELECT 1
          FROM unnest(fields.tags) AS tag
         CROSS JOIN unnest(%(tags)s::text[]) AS wanted
         WHERE tag = wanted OR starts_with(tag, wanted || '/')
    )
)
       ) AND EXISTS (
        SELECT 1
          FROM indexd.chunk_fields AS fields
         WHERE fields.namespace = %(namespace)s
           AND fields.doc_id = document.doc_id
           AND
    fields.filter_keys && indexd.filter_keys_of(
        %(namespace)s, 'source_path', %(source_path)s::text[]
    )
    AND fields.source_path = ANY(%(source_path)s::text[])
       ) AND EXISTS (
        SELECT 1
          FROM indexd.chunk_fields AS fields
         WHERE fields.namespace = %(namespace)s
           AND fields.doc_id = document.doc_id
           AND fields.meta @> %(meta)s::jsonb
       ) AND document.source_ref_origin = ANY(%(source_ref_origin)s::text[]))
   AND (document.created_at, document.doc_id) < (%(after)s::timestamptz, %(after_id)s)
 ORDER BY document.created_at DESC, document.doc_id DESC
 LIMIT %(limit)s
