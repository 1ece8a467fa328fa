/* indexd:writing.upsert.copy_chunks */
COPY indexd.chunks (
        namespace,
        doc_id,
        ordinal,
        ingested_at,
        half_life_seconds,
        embedding,
        chunk_id,
        source_ref_origin,
        source_path,
        tags,
        meta,
        text,
        generation
) FROM STDIN (FORMAT BINARY)
