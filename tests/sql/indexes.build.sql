/* indexd:indexes.build */
CREATE INDEX CONCURRENTLY "hnsw_ab5aa97074c454a0_384" ON indexd.chunks
 USING hnsw ((embedding::halfvec(384)) halfvec_ip_ops)
  WITH (m = 16, ef_construction = 64)
 WHERE namespace = 'notes'
   AND vector_dims(embedding) = 384
