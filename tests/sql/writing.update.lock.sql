/* indexd:writing.update.lock */
SELECT doc_id, digest, ingested_at, chunk_count, version
  FROM indexd.documents AS document
 WHERE document.namespace = %(namespace)s
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
 ORDER BY doc_id
   FOR UPDATE
