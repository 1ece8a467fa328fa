/* indexd:writing.vector_space.shut_out_writers */
SELECT
  FROM indexd.namespaces
 WHERE namespace = %(namespace)s
   FOR UPDATE
