/* indexd:orphans.count_anew */
WITH counted AS MATERIALIZED (
    SELECT (
            SELECT count(*) FROM indexd.documents WHERE namespace = %(namespace)s
           ) AS documents,
           (SELECT count(*) FROM indexd.chunks WHERE namespace = %(namespace)s) AS chunks
),
-- A namespace whose row was deleted gets one, with the dimension of its oldest vector.
-- It has none where no chunk has a vector.
created AS (
    INSERT INTO indexd.namespaces (namespace, dimension, documents, chunks, created_at)
    SELECT %(namespace)s, vector_dims(embedding), documents, counted.chunks, ingested_at
      FROM counted
     CROSS JOIN (
            SELECT embedding, ingested_at
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
             ORDER BY embedding IS NULL, ingested_at
             LIMIT 1
           ) AS oldest
    ON CONFLICT (namespace) DO NOTHING
    RETURNING 1
),
corrected AS (
    UPDATE indexd.namespaces
       SET documents      = counted.documents,
           chunks         = counted.chunks,
           chunks_removed = chunks_removed + %(removed)s
      FROM counted
     WHERE namespace = %(namespace)s
       AND (
            namespaces.documents <> counted.documents
            OR namespaces.chunks <> counted.chunks
           )
    RETURNING 1
)
SELECT EXISTS (SELECT FROM created) OR EXISTS (SELECT FROM corrected) AS was_wrong
