/* indexd:search.words */
        WITH matching AS MATERIALIZED (
            SELECT fields.doc_id, fields.ordinal, fields.ingested_at, fields.half_life_seconds,
                   -(fields.lex <#> %(asked)s::sparsevec) AS similarity
              FROM indexd.chunk_fields AS fields
             WHERE fields.namespace = %(namespace)s
               AND fields.terms && %(terms)s::int[]
               AND true
        ),
        scored AS (
            SELECT doc_id, ordinal, similarity,
                   indexd.score(
                       similarity, ingested_at, coalesce(half_life_seconds, %(half_life)s::float8),
                       %(at)s
                   ) AS score
              FROM matching
             WHERE similarity > 0
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
