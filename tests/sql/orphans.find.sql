/* indexd:orphans.find */
WITH counted AS (
    SELECT namespace, sum(documents)::bigint AS documents, sum(chunks)::bigint AS chunks
      FROM (
            SELECT namespace, 1 AS documents, 0 AS chunks FROM indexd.documents
             UNION ALL
            SELECT namespace, 0, 1 FROM indexd.chunks
           ) AS rows
     GROUP BY namespace
),
incomplete AS (
    SELECT documents.namespace, documents.doc_id, count(chunks.doc_id)::int AS chunks
      FROM indexd.documents
      LEFT JOIN indexd.chunks USING (namespace, doc_id)
     GROUP BY documents.namespace, documents.doc_id, documents.chunk_count
    HAVING count(chunks.doc_id) <> documents.chunk_count
)
SELECT (
        SELECT count(*)
          FROM indexd.chunks
         WHERE NOT EXISTS (
        SELECT 1
          FROM indexd.documents
         WHERE documents.namespace = chunks.namespace
           AND documents.doc_id = chunks.doc_id
       )
       ) AS chunks,
       (
        SELECT count(*)
          FROM indexd.chunk_fields
         WHERE NOT EXISTS (
        SELECT 1
          FROM indexd.chunks
         WHERE chunks.namespace = chunk_fields.namespace
           AND chunks.doc_id = chunk_fields.doc_id
           AND chunks.ordinal = chunk_fields.ordinal
       )
       ) AS fields,
       (
        SELECT count(*)
          FROM indexd.relevance
         WHERE NOT EXISTS (
        SELECT 1
          FROM indexd.documents
         WHERE documents.namespace = relevance.namespace
           AND documents.doc_id = relevance.doc_id
       )
       ) AS relevance,
       (
        SELECT count(*)
          FROM indexd.forgotten_documents
         WHERE NOT EXISTS (
        SELECT 1
          FROM indexd.forget_events AS event
         WHERE event.namespace = forgotten_documents.namespace
           AND event.event_id = forgotten_documents.event_id
       )
       ) AS forgotten,
       (SELECT count(*) FROM incomplete) AS incomplete,
       (
        SELECT count(*)
          FROM counted
          FULL JOIN indexd.namespaces USING (namespace)
         WHERE (namespaces.documents, namespaces.chunks)
               IS DISTINCT FROM
               (coalesce(counted.documents, 0), coalesce(counted.chunks, 0))
       ) AS miscounted
