/* indexd:orphans.namespaces */
SELECT DISTINCT namespace
  FROM (
        SELECT namespace FROM indexd.namespaces
         UNION ALL
        SELECT namespace FROM (
    SELECT namespace, sum(documents)::bigint AS documents, sum(chunks)::bigint AS chunks
      FROM (
            SELECT namespace, 1 AS documents, 0 AS chunks FROM indexd.documents
             UNION ALL
            SELECT namespace, 0, 1 FROM indexd.chunks
           ) AS rows
     GROUP BY namespace
               ) AS counted
         UNION ALL
        SELECT namespace FROM indexd.chunk_fields
         UNION ALL
        SELECT namespace FROM indexd.relevance
         UNION ALL
        SELECT namespace FROM indexd.forgotten_documents
       ) AS named
 ORDER BY namespace
