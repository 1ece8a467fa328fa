/* indexd:writing.upsert.insert_chunks */
INSERT INTO indexd.chunks (
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
)
VALUES (
                %(namespace_0)s::text,
                %(doc_id_0)s::text,
                %(ordinal_0)s::int4,
                %(ingested_at_0)s::timestamptz,
                %(half_life_seconds_0)s::float8,
                %(embedding_0)s::vector,
                %(chunk_id_0)s::text,
                %(source_ref_origin_0)s::text,
                %(source_path_0)s::text,
                %(tags_0)s::text[],
                %(meta_0)s::jsonb,
                %(text_0)s::text,
                %(generation_0)s::int4
            ), (
                %(namespace_1)s::text,
                %(doc_id_1)s::text,
                %(ordinal_1)s::int4,
                %(ingested_at_1)s::timestamptz,
                %(half_life_seconds_1)s::float8,
                %(embedding_1)s::vector,
                %(chunk_id_1)s::text,
                %(source_ref_origin_1)s::text,
                %(source_path_1)s::text,
                %(tags_1)s::text[],
                %(meta_1)s::jsonb,
                %(text_1)s::text,
                %(generation_1)s::int4
            )
