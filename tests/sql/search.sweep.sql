/* indexd:search.sweep */ SELECT doc_id, ordinal, chunk_id, score
              FROM (
                    SELECT doc_id, ordinal, chunk_id,
                           indexd.score(
                               cosine, ingested_at,
                               coalesce(half_life_seconds, %(half_life)s), %(at)s
                           ) AS score
                      FROM unnest(
                %(classes)s::smallint[], %(since)s::timestamptz[], %(until)s::timestamptz[]
              ) AS slice (class, since, until)
              CROSS JOIN LATERAL (
                SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
                       -(embedding <#> %(vector)s) AS cosine
                  FROM indexd.chunks
                 WHERE namespace = %(namespace)s
                   AND half_life_class = slice.class
                   AND ingested_at BETWEEN slice.since AND slice.until
                   AND (embedding <#> %(vector)s) <= -%(floor)s::float8
                   AND true
                OFFSET 0
              ) AS swept
                   ) AS scored
             ORDER BY score DESC, doc_id, chunk_id
             LIMIT %(k)s
