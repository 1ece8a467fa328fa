/* indexd:writing.vector_space.spaces */
SELECT namespace, dimension, embedding_model, embedding_revision
  FROM indexd.namespaces
 WHERE namespace = ANY(%(namespaces)s)
   AND documents > 0
   AND dimension IS NOT NULL
