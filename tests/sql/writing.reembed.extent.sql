/* indexd:writing.reembed.extent */
WITH space AS (
    SELECT dimension, embedding_model, embedding_revision,
           dimension IS NOT NULL
           AND (embedding_model, embedding_revision)
               IS NOT DISTINCT FROM (%(model)s::text, %(revision)s::text)
           AND EXISTS (
                SELECT 1
                  FROM indexd.chunks
                 WHERE chunks.namespace = %(namespace)s
                   AND embedding IS NULL
           ) AS fills
      FROM indexd.namespaces
     WHERE namespace = %(namespace)s
       AND documents > 0
),
texts AS (
    SELECT count(*) FILTER (WHERE btrim(text) = '') AS empty,
           count(DISTINCT sha256(convert_to(chunks.text, 'UTF8'))) AS texts,
           count(DISTINCT sha256(convert_to(chunks.text, 'UTF8'))) FILTER (
               WHERE EXISTS (
            SELECT
              FROM indexd.reembedded
             WHERE reembedded.namespace = %(namespace)s
               AND reembedded.text_digest = sha256(convert_to(chunks.text, 'UTF8'))
       )
           ) AS done
      FROM indexd.chunks
     WHERE namespace = %(namespace)s
       AND (embedding IS NULL OR NOT (SELECT fills FROM space))
)
SELECT dimension, embedding_model, embedding_revision, fills, empty, texts, done
  FROM space
 CROSS JOIN texts
