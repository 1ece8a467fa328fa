/* indexd:writing.vector_space.drop_vectors */
UPDATE indexd.chunks
   SET embedding = NULL
 WHERE namespace = %(namespace)s
   AND embedding IS NOT NULL
