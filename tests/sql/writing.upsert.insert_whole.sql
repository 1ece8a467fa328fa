/* indexd:writing.upsert.insert_whole */
WITH document AS (
    INSERT INTO indexd.documents (
        namespace, doc_id, ingested_at, half_life_seconds, chunk_count, digest,
        source_ref_origin, source_ref_id, source_ref_offset, source_ref_trust_level,
        source_ref_injected_by, meta, created_at, expires_at, version
    )
    SELECT %(namespace)s::text, %(doc_id)s::text, %(ingested_at)s::timestamptz,
           %(half_life_seconds)s::float8, %(chunk_count)s::int, %(digest)s::bytea,
           %(origin)s::text, %(id)s::text, %(offset)s::text, %(trust_level)s::text,
           %(injected_by)s::text, %(meta)s::jsonb, %(created_at)s::timestamptz,
           %(expires_at)s::timestamptz,
           1 + coalesce((
            SELECT max(forgotten.version)
              FROM indexd.forgotten_documents AS forgotten
             WHERE forgotten.namespace = %(namespace)s
               AND forgotten.doc_id = %(doc_id)s
       ), 0)
     WHERE NOT EXISTS (
        SELECT 1
          FROM indexd.documents AS existing
         WHERE existing.namespace = %(namespace)s
           AND existing.doc_id = %(doc_id)s
       )
    ON CONFLICT (namespace, doc_id) DO NOTHING
    RETURNING version
),
-- Rows of a new document that exist already are orphans: somebody deleted its row by hand.
orphaned_relevance AS (
    DELETE FROM indexd.relevance
     WHERE namespace = %(namespace)s
       AND doc_id = %(doc_id)s
       AND EXISTS (SELECT 1 FROM document)
),
orphaned_chunks AS (
    DELETE FROM indexd.chunks
     WHERE namespace = %(namespace)s
       AND doc_id = %(doc_id)s
       AND EXISTS (SELECT 1 FROM document)
    RETURNING doc_id
),
orphaned_fields AS (
    DELETE FROM indexd.chunk_fields
     WHERE namespace = %(namespace)s
       AND doc_id = %(doc_id)s
       AND EXISTS (SELECT 1 FROM document)
    RETURNING doc_id
),
orphans AS MATERIALIZED (
    SELECT (SELECT count(*) FROM orphaned_chunks) AS chunks,
           (SELECT count(*) FROM orphaned_fields) AS fields
),
chunks AS (
    INSERT INTO indexd.chunks (
        namespace, doc_id, ingested_at, half_life_seconds, source_ref_origin, generation,
        ordinal, embedding, chunk_id, source_path, tags, meta, text
    )
    SELECT %(namespace)s::text, %(doc_id)s::text, %(ingested_at)s::timestamptz,
           %(half_life_seconds)s::float8, %(origin)s::text, %(generation)s::int, sent.*
      FROM (
            VALUES (
                %(ordinal_0)s::int4,
                %(embedding_0)s::vector,
                %(chunk_id_0)s::text,
                %(source_path_0)s::text,
                %(tags_0)s::text[],
                %(meta_0)s::jsonb,
                %(text_0)s::text
            ), (
                %(ordinal_1)s::int4,
                %(embedding_1)s::vector,
                %(chunk_id_1)s::text,
                %(source_path_1)s::text,
                %(tags_1)s::text[],
                %(meta_1)s::jsonb,
                %(text_1)s::text
            )
           ) AS sent
     WHERE EXISTS (SELECT 1 FROM document)
       -- This waits until the orphans, whose keys may be the same, are deleted.
       AND (SELECT chunks + fields FROM orphans) >= 0
    RETURNING namespace, doc_id, ordinal, ingested_at, half_life_seconds, source_ref_origin,
              source_path, tags, meta, text
),
fields AS (
    INSERT INTO indexd.chunk_fields (
        namespace, doc_id, ordinal, ingested_at, half_life_seconds, source_ref_origin,
        source_path, tags, meta, terms, lex, length
    )
    SELECT chunk.namespace, chunk.doc_id, chunk.ordinal, chunk.ingested_at,
           chunk.half_life_seconds, chunk.source_ref_origin, chunk.source_path,
           indexd.merged_tags(chunk.tags, indexd.tags_of(document.meta)),
           document.meta || chunk.meta, weighed.terms, weighed.lex, weighed.length
      FROM chunks AS chunk
     CROSS JOIN (SELECT %(meta)s::jsonb AS meta) AS document
     CROSS JOIN LATERAL indexd.weighed(
        chunk.namespace, chunk.text,
        coalesce(
            (SELECT words_average FROM indexd.namespaces WHERE namespace = %(namespace)s),
            %(average)s::float8
        )
     ) AS weighed
)
UPDATE indexd.namespaces
   -- A document whose row was deleted by hand is counted still.
   SET documents      = documents + CASE WHEN orphans.chunks > 0 THEN 0 ELSE 1 END,
       chunks         = namespaces.chunks + %(chunk_count)s - orphans.chunks,
       chunks_removed = chunks_removed + orphans.chunks
  FROM orphans
 WHERE namespace = %(namespace)s
   AND EXISTS (SELECT 1 FROM document)
RETURNING (SELECT version FROM document) AS version
