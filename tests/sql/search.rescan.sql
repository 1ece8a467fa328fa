/* indexd:search.rescan */ SELECT doc_id, ordinal, chunk_id, score
              FROM (
                    SELECT doc_id, ordinal, chunk_id,
                           indexd.score(
                               cosine, ingested_at,
                               coalesce(half_life_seconds, %(half_life)s), %(at)s
                           ) AS score
                      FROM (
                SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
                       -(embedding <#> %(vector)s) AS cosine
                  FROM indexd.chunks
                 WHERE namespace = %(namespace)s
                   AND true
                   AND (embedding <#> %(vector)s) <= -%(floor)s::float8
                OFFSET 0
              ) AS matching
                   ) AS scored
             ORDER BY score DESC, doc_id, chunk_id
             LIMIT %(k)s
