/* indexd:indexes.rebuild */
REINDEX INDEX CONCURRENTLY "indexd"."hnsw_ab5aa97074c454a0_384"
