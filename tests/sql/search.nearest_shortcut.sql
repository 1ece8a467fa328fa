/* indexd:search.nearest_shortcut */
        SELECT facts.*, hit.*
          FROM (
            SELECT namespaces.namespace,
                   dimension,
                   chunks,
                   policy.half_life_seconds,
                   EXISTS (
                    SELECT 1
                      FROM pg_index
                     WHERE indexrelid = to_regclass(%(index)s)
                       AND indisvalid
                   ) AS indexed,
                   EXISTS (
                    SELECT 1
                      FROM indexd.documents
                     WHERE documents.namespace = %(namespace)s
                       AND documents.expires_at <= %(unexpired_at)s
                   ) AS expired,
                   coalesce(policy.semantic, false) AS semantic,
                   embedding_model AS model_name,
                   embedding_revision AS model_revision
              FROM indexd.namespaces
              LEFT JOIN LATERAL (
        SELECT half_life_seconds, semantic IS NOT NULL AS semantic
          FROM indexd.retention_policies
         WHERE retention_policies.namespace IN (%(namespace)s, '')
         ORDER BY retention_policies.namespace DESC
         LIMIT 1
                   ) AS policy
                ON true
             WHERE namespaces.namespace = %(namespace)s
               AND documents > 0
               ) AS facts
          LEFT JOIN (
        SELECT best.doc_id AS doc_id,
               best.chunk_id AS chunk_id,
               best.score AS score,
               best.similarity AS similarity,
               1::float8 AS decay,
               greatest(date_part('epoch', %(at)s - best.ingested_at), 0) AS age_seconds,
               best.half_life AS half_life_seconds,
               best.text AS text,
               best.meta AS meta,
               document.meta AS document_meta,
               document.version AS version,
               best.tags AS tags,
               best.ingested_at AS ingested_at,
               NULL::float8[] AS words,
               document.source_ref_origin AS origin,
               document.source_ref_id AS origin_id,
               document.source_ref_offset AS origin_offset,
               document.source_ref_trust_level AS trust_level,
               document.source_ref_injected_by AS injected_by,
               CASE WHEN place = 1 THEN all_cosines END AS cosines
          FROM (
                SELECT *,
                       cosine            AS score,
                       cosine            AS similarity,
                       half_life_seconds AS half_life,
                       row_number() OVER ranking    AS place,
                       array_agg(cosine) OVER whole AS all_cosines
                  FROM (
            SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
                   -(embedding <#> %(vector)s) AS cosine,
                   text, meta, tags
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND vector_dims(embedding) = 384
               AND true
             ORDER BY (embedding::halfvec(384)) <#> %(vector)s::vector::halfvec(384)
             LIMIT %(similar_rows)s
                       ) AS near
                WINDOW ranking AS (ORDER BY cosine DESC, doc_id, chunk_id),
                       whole   AS (ranking RANGE BETWEEN UNBOUNDED PRECEDING
                                                     AND UNBOUNDED FOLLOWING)
                 ORDER BY cosine DESC, doc_id, chunk_id
                 LIMIT %(k)s
               ) AS best
          JOIN indexd.documents AS document
            ON document.namespace = %(namespace)s
           AND document.doc_id = best.doc_id
               ) AS hit
            ON true
         ORDER BY hit.score DESC, hit.doc_id, hit.chunk_id
