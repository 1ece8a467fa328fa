/* indexd:indexes.namespaces */
SELECT namespace,
       dimension,
       chunks,
       index_mode AS mode,
       chunks_removed AS removed,
       chunks_removed - greatest(chunks_removed_at_build, index_built_at) AS dead,
       index_serves AS serves
  FROM indexd.namespaces
 ORDER BY namespace
