/* indexd:writing.upsert.write_fields */
    INSERT INTO indexd.chunk_fields (
        namespace, doc_id, ordinal, ingested_at, half_life_seconds, source_ref_origin,
        source_path, tags, meta, terms, lex, length
    )
    SELECT chunk.namespace, chunk.doc_id, chunk.ordinal, chunk.ingested_at,
           chunk.half_life_seconds, chunk.source_ref_origin, chunk.source_path,
           indexd.merged_tags(chunk.tags, indexd.tags_of(document.meta)),
           document.meta || chunk.meta, weighed.terms, weighed.lex, weighed.length
      FROM indexd.chunks AS chunk
      JOIN indexd.documents AS document
        ON document.namespace = %(namespace)s
       AND document.doc_id = chunk.doc_id
     CROSS JOIN LATERAL indexd.weighed(
        chunk.namespace, chunk.text,
        coalesce(
            (SELECT words_average FROM indexd.namespaces WHERE namespace = %(namespace)s),
            %(average)s::float8
        )
     ) AS weighed
     WHERE chunk.namespace = %(namespace)s
       AND chunk.doc_id = ANY(%(doc_ids)s)
