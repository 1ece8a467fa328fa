/* indexd:search.words_pool */
        SELECT doc_id, chunk_id
          FROM (
            SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
                   ts_rank(words, indexd.any_word(%(text)s), 1 | 32)::float8 AS similarity
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND words @@ indexd.any_word(%(text)s)
               AND true
               ) AS matching
         ORDER BY indexd.score(
                      similarity, ingested_at, coalesce(half_life_seconds, %(half_life)s), %(at)s
                  ) DESC, doc_id, chunk_id
         LIMIT %(pool)s
