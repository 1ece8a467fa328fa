EXPLAIN (FORMAT JSON)
        SELECT 1 /* indexd:search.estimate */
          FROM indexd.chunk_fields AS fields
         WHERE fields.namespace = %(namespace)s
           AND (fields.doc_id = ANY(%(doc_ids)s::text[]) AND fields.ingested_at > %(ingested_after)s::timestamptz AND fields.ingested_at < %(ingested_before)s::timestamptz AND fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'tag', %(tags)s::text[]
        ) AND fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'source_path', %(source_path)s::text[]
        ) AND fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'source_ref_origin', %(source_ref_origin)s::text[]
        ) AND fields.meta @> %(meta)s::jsonb)
