/* indexd:writing.reembed.extent */
WITH texts AS (
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
)
SELECT dimension, embedding_model, embedding_revision, empty, texts, done
  FROM indexd.namespaces
 CROSS JOIN texts
 WHERE namespace = %(namespace)s
   AND documents > 0
