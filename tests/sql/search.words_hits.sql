/* indexd:search.words_hits */
    WITH best AS (
        SELECT chunks.doc_id, chunks.ordinal, chunks.chunk_id, chunks.ingested_at,
               coalesce(chunks.half_life_seconds, %(half_life)s::float8) AS half_life,
               chosen.similarity, chosen.score, chosen.place
          FROM unnest(
                %(doc_ids)s::text[], %(chunk_ids)s::text[], %(similarities)s::float8[],
                %(scores)s::float8[]
               ) WITH ORDINALITY AS chosen (doc_id, chunk_id, similarity, score, place)
          JOIN indexd.chunks
            ON chunks.namespace = %(namespace)s
           AND chunks.doc_id = chosen.doc_id COLLATE "C"
           AND chunks.chunk_id = chosen.chunk_id COLLATE "C"
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
           (
            SELECT array_agg(
                       -(coalesce(
                           fields.lex,
                           (
                            SELECT lex
                              FROM indexd.weighed(%(namespace)s, chunk.text, NULL)
                           )
                       ) <#> one.vector)
                       ORDER BY one.place
                   )
              FROM indexd.chunk_fields AS fields
             CROSS JOIN unnest(%(each)s::sparsevec[])
                   WITH ORDINALITY AS one (vector, place)
             WHERE fields.namespace = %(namespace)s
               AND fields.doc_id = best.doc_id
               AND fields.ordinal = best.ordinal
           ) AS words,
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
     ORDER BY best.place
