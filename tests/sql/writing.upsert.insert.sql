/* indexd:writing.upsert.insert */
INSERT INTO indexd.documents (
        namespace, doc_id, ingested_at, half_life_seconds, chunk_count, digest,
        source_ref_origin, source_ref_id, source_ref_offset, source_ref_trust_level,
        source_ref_injected_by, meta
    )
SELECT %(namespace)s, sent.*
  FROM (
    SELECT doc_id, ingested_at, half_life_seconds, chunk_count, digest,
           origin, id, "offset", trust_level, injected_by, meta
      FROM unnest(
            %(doc_id)s::text[], %(ingested_at)s::timestamptz[], %(half_life_seconds)s::float8[],
            %(chunk_count)s::int[], %(digest)s::bytea[], %(origin)s::text[], %(id)s::text[],
            %(offset)s::text[], %(trust_level)s::text[], %(injected_by)s::text[],
            %(meta)s::jsonb[]
           ) AS sent (
            doc_id, ingested_at, half_life_seconds, chunk_count, digest,
            origin, id, "offset", trust_level, injected_by, meta
           )
       ) AS sent
 ORDER BY doc_id
ON CONFLICT (namespace, doc_id) DO NOTHING
RETURNING doc_id
