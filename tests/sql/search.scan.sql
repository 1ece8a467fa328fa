/* indexd:search.scan */
        WITH candidates AS (
            SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
                   -(embedding <#> %(vector)s) AS similarity
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND embedding IS NOT NULL
               AND true
            OFFSET 0
        ),
        fading AS (
            SELECT doc_id, ordinal, chunk_id, ingested_at, similarity,
                   coalesce(half_life_seconds, %(half_life)s::float8) AS half_life
              FROM candidates
        ),
        scored AS (
            SELECT *,
                   indexd.score(similarity, ingested_at, half_life, %(at)s) AS score
              FROM fading
        ),
        best AS (
            SELECT *
              FROM scored
             ORDER BY score DESC, doc_id, chunk_id
             LIMIT %(page)s OFFSET %(offset)s
        )
        SELECT best.doc_id AS doc_id,
               best.chunk_id AS chunk_id,
               best.score AS score,
               best.similarity AS similarity,
               indexd.decay(best.ingested_at, best.half_life, %(at)s) AS decay,
               greatest(date_part('epoch', %(at)s - best.ingested_at), 0) AS age_seconds,
               best.half_life AS half_life_seconds,
               chunk.text AS text,
               chunk.meta AS meta,
               document.meta AS document_meta,
               document.version AS version,
               chunk.tags AS tags,
               best.ingested_at AS ingested_at,
               NULL::float8[] AS words,
               document.source_ref_origin AS origin,
               document.source_ref_id AS origin_id,
               document.source_ref_offset AS origin_offset,
               document.source_ref_trust_level AS trust_level,
               document.source_ref_injected_by AS injected_by
          FROM best
          JOIN indexd.chunks AS chunk
            ON chunk.namespace = %(namespace)s
           AND chunk.doc_id = best.doc_id
           AND chunk.ordinal = best.ordinal
          JOIN indexd.documents AS document
            ON document.namespace = %(namespace)s
           AND document.doc_id = best.doc_id
         ORDER BY best.score DESC, best.doc_id, best.chunk_id
