/* indexd:search.words */
        WITH matching AS MATERIALIZED (
            SELECT fields.doc_id, fields.ordinal, fields.ingested_at, fields.half_life_seconds,
                   -(fields.lex <#> %(asked)s::sparsevec) AS similarity
              FROM indexd.chunk_fields AS fields
             WHERE fields.namespace = %(namespace)s
               AND fields.terms && %(terms)s::int[]
               AND (fields.doc_id = ANY(%(doc_ids)s::text[]) AND fields.ingested_at > %(ingested_after)s::timestamptz AND fields.ingested_at < %(ingested_before)s::timestamptz AND (
        fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'tag', %(tags)s::text[]
        )
        AND EXISTS (
            SELECT 1
              FROM unnest(fields.tags) AS tag
             CROSS JOIN unnest(%(tags)s::text[]) AS wanted
             WHERE tag = wanted OR starts_with(tag, wanted || '/')
        )
    ) AND
        fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'source_path', %(source_path)s::text[]
        )
        AND fields.source_path = ANY(%(source_path)s::text[])
     AND
        fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'source_ref_origin', %(source_ref_origin)s::text[]
        )
        AND fields.source_ref_origin = ANY(%(source_ref_origin)s::text[])
     AND fields.meta @> %(meta)s::jsonb)
            UNION ALL
            SELECT fields.doc_id, fields.ordinal, fields.ingested_at, fields.half_life_seconds,
                   -(weighed.lex <#> %(asked)s::sparsevec) AS similarity
              FROM indexd.chunk_fields AS fields
              JOIN indexd.chunks AS chunk
                ON chunk.namespace = %(namespace)s
               AND chunk.doc_id = fields.doc_id
               AND chunk.ordinal = fields.ordinal
             CROSS JOIN LATERAL indexd.weighed(
                    %(namespace)s, chunk.text,
                    (SELECT words_average FROM indexd.namespaces WHERE namespace = %(namespace)s)
                   ) AS weighed
             WHERE fields.namespace = %(namespace)s
               AND fields.lex IS NULL
               AND weighed.terms && %(terms)s::int[]
               AND (fields.doc_id = ANY(%(doc_ids)s::text[]) AND fields.ingested_at > %(ingested_after)s::timestamptz AND fields.ingested_at < %(ingested_before)s::timestamptz AND (
        fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'tag', %(tags)s::text[]
        )
        AND EXISTS (
            SELECT 1
              FROM unnest(fields.tags) AS tag
             CROSS JOIN unnest(%(tags)s::text[]) AS wanted
             WHERE tag = wanted OR starts_with(tag, wanted || '/')
        )
    ) AND
        fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'source_path', %(source_path)s::text[]
        )
        AND fields.source_path = ANY(%(source_path)s::text[])
     AND
        fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'source_ref_origin', %(source_ref_origin)s::text[]
        )
        AND fields.source_ref_origin = ANY(%(source_ref_origin)s::text[])
     AND fields.meta @> %(meta)s::jsonb)
        ),
        scored AS (
            SELECT doc_id, ordinal, similarity,
                   indexd.score(
                       similarity, ingested_at, coalesce(half_life_seconds, %(half_life)s::float8),
                       %(at)s
                   ) AS score
              FROM matching
             WHERE similarity > 0 AND similarity >= %(min_similarity)s::float8
        ),
        best AS (
            SELECT *
              FROM scored
             ORDER BY score DESC, doc_id
             FETCH FIRST (%(k)s) ROWS WITH TIES
        ),
        named AS (
            SELECT best.doc_id, best.ordinal, chunk.chunk_id, best.similarity, best.score
              FROM best
              JOIN indexd.chunks AS chunk
                ON chunk.namespace = %(namespace)s
               AND chunk.doc_id = best.doc_id
               AND chunk.ordinal = best.ordinal
             ORDER BY score DESC, doc_id, chunk_id
        )
        SELECT *
          FROM named
         ORDER BY score DESC, doc_id, chunk_id
         LIMIT %(k)s
