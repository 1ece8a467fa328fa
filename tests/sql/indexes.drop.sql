/* indexd:indexes.drop */
DROP INDEX CONCURRENTLY IF EXISTS "indexd"."hnsw_ab5aa97074c454a0_384"
