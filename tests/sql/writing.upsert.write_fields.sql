/* indexd:writing.upsert.write_fields */
    INSERT INTO indexd.chunk_fields (
        namespace, doc_id, ordinal, ingested_at, half_life_seconds, source_ref_origin,
        source_path, tags, meta
    )
    SELECT chunk.namespace, chunk.doc_id, chunk.ordinal, chunk.ingested_at,
           chunk.half_life_seconds, chunk.source_ref_origin, chunk.source_path,
           indexd.merged_tags(chunk.tags, indexd.tags_of(document.meta)),
           document.meta || chunk.meta
      FROM indexd.chunks AS chunk
      JOIN indexd.documents AS document
        ON document.namespace = %(namespace)s
       AND document.doc_id = chunk.doc_id
     WHERE chunk.namespace = %(namespace)s
       AND chunk.doc_id = ANY(%(doc_ids)s)
