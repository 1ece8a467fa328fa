/* indexd:indexes.comment */
COMMENT ON INDEX "indexd"."hnsw_ab5aa97074c454a0_384" IS 'nearest neighbours in namespace notes'
