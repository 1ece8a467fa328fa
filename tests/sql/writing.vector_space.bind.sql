/* indexd:writing.vector_space.bind */
UPDATE indexd.namespaces
   SET weak = false
 WHERE namespace = %(namespace)s
