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
               AND true
             ORDER BY (embedding::halfvec(384)) <#> %(vector)s::vector::halfvec(384)
             LIMIT %(similar_rows)s
              ) AS nearby
        ),
        newest AS MATERIALIZED (
            SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
                   -(embedding <#> %(vector)s) AS cosine,
                   embedding IS NOT NULL
                   AND true AS matches
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND true
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
                    SELECT doc_id, ordinal, chunk_id,
                           indexd.score(
                               cosine, ingested_at,
                               coalesce(half_life_seconds, %(half_life)s), %(at)s
                           ) AS score
                      FROM near
                   ) AS scored
             ORDER BY score DESC, doc_id, chunk_id
             LIMIT %(k)s
            )
            UNION ALL
            (
            SELECT doc_id, ordinal, chunk_id, score
              FROM (
                    SELECT doc_id, ordinal, chunk_id,
                           indexd.score(
                               cosine, ingested_at,
                               coalesce(half_life_seconds, %(half_life)s), %(at)s
                           ) AS score
                      FROM newest WHERE matches
                   ) AS scored
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
