/* indexd:search.scan_shortcut */
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
            SELECT *, NULL::float8[] AS cosines FROM (
        WITH candidates AS (
            SELECT doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
                   -(embedding <#> %(vector)s) AS similarity
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND embedding IS NOT NULL
               AND true
               AND EXISTS (
                    SELECT 1
                      FROM indexd.namespaces
                     WHERE namespace = %(namespace)s
                       AND dimension = 384
               )
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
    ) AS hits
               ) AS hit
            ON true
         ORDER BY hit.score DESC, hit.doc_id, hit.chunk_id
