EXPLAIN (FORMAT JSON)
        SELECT 1 /* indexd:search.estimate */
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND (filter_keys && indexd.filter_keys_of(%(namespace)s, 'tag', %(tags)s::text[]) AND
        filter_keys && indexd.filter_keys_of(%(namespace)s, 'source_path', %(source_path)s::text[])
     AND
        filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'source_ref_origin', %(source_ref_origin)s::text[]
        )
     AND doc_id = ANY(%(doc_ids)s::text[]) AND meta @> %(meta)s::jsonb AND ingested_at > %(ingested_after)s::timestamptz AND ingested_at < %(ingested_before)s::timestamptz)
