/* indexd:writing.upsert.replace */
UPDATE indexd.documents AS document
   SET ingested_at            = sent.ingested_at,
       half_life_seconds      = sent.half_life_seconds,
       chunk_count            = sent.chunk_count,
       digest                 = sent.digest,
       source_ref_origin      = sent.origin,
       source_ref_id          = sent.id,
       source_ref_offset      = sent."offset",
       source_ref_trust_level = sent.trust_level,
       source_ref_injected_by = sent.injected_by,
       meta                   = sent.meta,
       expires_at             = sent.expires_at,
       version                = document.version + 1
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
 WHERE document.namespace = %(namespace)s
   AND document.doc_id = sent.doc_id
