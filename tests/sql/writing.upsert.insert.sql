/* indexd:writing.upsert.insert */
INSERT INTO indexd.documents (
        namespace, doc_id, ingested_at, half_life_seconds, chunk_count, digest,
        source_ref_origin, source_ref_id, source_ref_offset, source_ref_trust_level,
        source_ref_injected_by, meta, created_at, expires_at, version
    )
SELECT %(namespace)s, sent.*,
       1 + coalesce((
            SELECT max(forgotten.version)
              FROM indexd.forgotten_documents AS forgotten
             WHERE forgotten.namespace = %(namespace)s
               AND forgotten.doc_id = sent.doc_id
       ), 0)
  FROM (
    SELECT doc_id, ingested_at, half_life_seconds, chunk_count, digest,
           origin, id, "offset", trust_level, injected_by, meta, created_at, expires_at
      FROM unnest(
            %(doc_id)s::text[], %(ingested_at)s::timestamptz[], %(half_life_seconds)s::float8[],
            %(chunk_count)s::int[], %(digest)s::bytea[], %(origin)s::text[], %(id)s::text[],
            %(offset)s::text[], %(trust_level)s::text[], %(injected_by)s::text[],
            %(meta)s::jsonb[], %(created_at)s::timestamptz[], %(expires_at)s::timestamptz[]
           ) AS sent (
            doc_id, ingested_at, half_life_seconds, chunk_count, digest,
            origin, id, "offset", trust_level, injected_by, meta, created_at, expires_at
           )
       ) AS sent
 WHERE NOT EXISTS (
        SELECT 1
          FROM indexd.documents AS existing
         WHERE existing.namespace = %(namespace)s
           AND existing.doc_id = sent.doc_id
       )
 ORDER BY doc_id
ON CONFLICT (namespace, doc_id) DO NOTHING
RETURNING doc_id, version
