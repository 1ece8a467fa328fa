/* indexd:stats.document_counts */
SELECT namespace, documents
  FROM indexd.namespaces
 WHERE documents > 0
