/* indexd:search.probe */
        WITH near AS MATERIALIZED (
            SELECT *, row_number() OVER () AS place
              FROM (
            SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
                   -(embedding <#> %(vector)s) AS cosine,
                   -((embedding::halfvec(384)) <#> %(vector)s::vector::halfvec(384)) AS half_cosine
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND vector_dims(embedding) = 384
               AND (chunks.doc_id = ANY(%(doc_ids)s::text[]) AND chunks.ingested_at > %(ingested_after)s::timestamptz AND chunks.ingested_at < %(ingested_before)s::timestamptz AND coalesce((
            SELECT true
              FROM indexd.chunk_fields AS fields
             WHERE fields.namespace = %(namespace)s
               AND fields.doc_id = chunks.doc_id
               AND fields.ordinal = chunks.ordinal
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
               AND
        fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'source_path', %(source_path)s::text[]
        )
        AND fields.source_path = ANY(%(source_path)s::text[])
               AND
        fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'source_ref_origin', %(source_ref_origin)s::text[]
        )
        AND fields.source_ref_origin = ANY(%(source_ref_origin)s::text[])
               AND fields.meta @> %(meta)s::jsonb
           ), false))
             ORDER BY (embedding::halfvec(384)) <#> %(vector)s::vector::halfvec(384)
             LIMIT %(similar_rows)s
              ) AS nearby
        ),
        newest AS MATERIALIZED (
            SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
                   -(embedding <#> %(vector)s) AS cosine,
                   embedding IS NOT NULL
                   AND (chunks.doc_id = ANY(%(doc_ids)s::text[]) AND coalesce((
            SELECT true
              FROM indexd.chunk_fields AS fields
             WHERE fields.namespace = %(namespace)s
               AND fields.doc_id = chunks.doc_id
               AND fields.ordinal = chunks.ordinal
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
               AND
        fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'source_path', %(source_path)s::text[]
        )
        AND fields.source_path = ANY(%(source_path)s::text[])
               AND
        fields.filter_keys && indexd.filter_keys_of(
            %(namespace)s, 'source_ref_origin', %(source_ref_origin)s::text[]
        )
        AND fields.source_ref_origin = ANY(%(source_ref_origin)s::text[])
               AND fields.meta @> %(meta)s::jsonb
           ), false)) AS matches
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND (chunks.ingested_at > %(ingested_after)s::timestamptz AND chunks.ingested_at < %(ingested_before)s::timestamptz)
             ORDER BY ingested_at DESC
             LIMIT %(newest_rows)s
        ),
        classes AS (
            SELECT half_life_class FROM (VALUES (0)) AS once
             CROSS JOIN LATERAL (
            WITH RECURSIVE present (half_life_class) AS (
                (
                    SELECT half_life_class
                      FROM indexd.chunks
                     WHERE namespace = %(namespace)s
                     ORDER BY half_life_class
                     LIMIT 1
                )
                UNION ALL
                SELECT (
                        SELECT chunks.half_life_class
                          FROM indexd.chunks
                         WHERE chunks.namespace = %(namespace)s
                           AND chunks.half_life_class > present.half_life_class
                         ORDER BY chunks.half_life_class
                         LIMIT 1
                       )
                  FROM present
                 WHERE present.half_life_class IS NOT NULL
            )
            SELECT half_life_class FROM present WHERE half_life_class IS NOT NULL
             ) AS present
             WHERE %(newest_rows)s > 0
        ),
        best AS (
            (
            SELECT doc_id, ordinal, chunk_id, score
              FROM (
            SELECT DISTINCT ON (doc_id) *
              FROM (
                    SELECT doc_id, ordinal, chunk_id,
                           indexd.score(
                               cosine, ingested_at,
                               coalesce(half_life_seconds, %(half_life)s), %(at)s
                           ) AS score
                      FROM near
                   ) AS scored
             ORDER BY doc_id, score DESC, chunk_id
        ) AS documents
             ORDER BY score DESC, doc_id, chunk_id
             LIMIT %(k)s
            )
            UNION ALL
            (
            SELECT doc_id, ordinal, chunk_id, score
              FROM (
            SELECT DISTINCT ON (doc_id) *
              FROM (
                    SELECT doc_id, ordinal, chunk_id,
                           indexd.score(
                               cosine, ingested_at,
                               coalesce(half_life_seconds, %(half_life)s), %(at)s
                           ) AS score
                      FROM newest WHERE matches
                   ) AS scored
             ORDER BY doc_id, score DESC, chunk_id
        ) AS documents
             ORDER BY score DESC, doc_id, chunk_id
             LIMIT %(k)s
            )
        )
        SELECT ARRAY(SELECT half_cosine FROM near ORDER BY place) AS half_cosines,
               (SELECT count(*) FROM newest) AS newest,
               (SELECT min(ingested_at) FROM newest) AS newest_since,
               ARRAY(SELECT half_life_class FROM classes) AS classes,
               ARRAY(SELECT doc_id FROM best) AS doc_ids,
               ARRAY(SELECT ordinal FROM best) AS ordinals,
               ARRAY(SELECT chunk_id FROM best) AS chunk_ids,
               ARRAY(SELECT score FROM best) AS scores
