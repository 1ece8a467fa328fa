/* indexd:writing.vector_space.look */
SELECT namespace, dimension, embedding_model, embedding_revision, weak, documents,
       (writes_paused_until IS NULL OR writes_paused_until <= %(at)s) AS is_open
  FROM indexd.namespaces
 WHERE namespace = %(namespace)s
