/* indexd:forgetting.plans.insert_documents */
    INSERT INTO indexd.forget_plan_documents (
        namespace, plan_id, doc_id, ingested_at, digest
    )
    SELECT %(namespace)s, %(plan_id)s, doc_id, ingested_at, digest
      FROM (
    SELECT doc_id, ingested_at, digest
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       -- A field that the request does not give is NULL: then every document passes.
       AND (%(older_than)s::timestamptz IS NULL OR ingested_at < %(older_than)s)
       AND (%(source_ref_origin)s::text IS NULL OR source_ref_origin = %(source_ref_origin)s)
       AND (%(source_ref_id)s::text     IS NULL OR source_ref_id = %(source_ref_id)s)
       AND (%(doc_id)s::text            IS NULL OR doc_id = %(doc_id)s)
       -- Chunks have tags, documents have none: one tagged chunk condemns its document.
       AND (%(tags)s::text[]            IS NULL OR doc_id IN (
            SELECT doc_id
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND (
        filter_keys && indexd.filter_keys_of(%(namespace)s, 'tag', %(tags)s::text[])
        AND EXISTS (
            SELECT
              FROM unnest(tags) AS tag
             CROSS JOIN unnest(%(tags)s::text[]) AS wanted
             WHERE tag = wanted OR starts_with(tag, wanted || '/')
        )
    )
           ))
) AS condemned
