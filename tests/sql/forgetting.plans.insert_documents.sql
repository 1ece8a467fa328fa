/* indexd:forgetting.plans.insert_documents */
    INSERT INTO indexd.forget_plan_documents (
        namespace, plan_id, doc_id, ingested_at, digest, version
    )
    SELECT %(namespace)s, %(plan_id)s, doc_id, ingested_at, digest, version
      FROM (
    SELECT doc_id, ingested_at, digest, version
      FROM indexd.documents AS document
     WHERE namespace = %(namespace)s
       -- A field that the request does not give is NULL: then every document passes.
       AND (%(older_than)s::timestamptz IS NULL OR ingested_at < %(older_than)s)
       AND (%(source_ref_origin)s::text IS NULL OR source_ref_origin = %(source_ref_origin)s)
       AND (%(source_ref_id)s::text     IS NULL OR source_ref_id = %(source_ref_id)s)
       AND (%(doc_id)s::text            IS NULL OR doc_id = %(doc_id)s)
       -- A document's own tags are those of each of its chunks; one tagged chunk condemns it, too.
       AND (%(tags)s::text[]            IS NULL OR doc_id IN (
            SELECT fields.doc_id
              FROM indexd.chunk_fields AS fields
             WHERE fields.namespace = %(namespace)s
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
           ))
) AS condemned
