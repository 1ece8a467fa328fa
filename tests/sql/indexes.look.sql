/* indexd:indexes.look */
SELECT pg_class.relname AS name,
       pg_index.indisvalid AS valid,
       progress.blocks_done / nullif(progress.blocks_total, 0)::float8 AS done
  FROM pg_index
  JOIN pg_class
    ON pg_class.oid = pg_index.indexrelid
  LEFT JOIN pg_stat_progress_create_index AS progress
    ON progress.index_relid = pg_index.indexrelid
 WHERE pg_index.indrelid = 'indexd.chunks'::regclass
   AND starts_with(pg_class.relname, 'hnsw_')
