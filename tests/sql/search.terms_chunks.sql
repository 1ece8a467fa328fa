/* indexd:search.terms_chunks */
SELECT chunks, chunks_removed AS removed
  FROM indexd.namespaces
 WHERE namespace = %(namespace)s
