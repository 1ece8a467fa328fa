/* indexd:writing.vector_space.change_empty */
UPDATE indexd.namespaces
   SET dimension          = %(dimension)s,
       embedding_model    = %(model)s,
       embedding_revision = %(revision)s,
       index_serves       = coalesce(index_serves AND dimension = %(dimension)s, false)
 WHERE namespace = %(namespace)s
   AND (documents = 0 OR dimension IS NULL)
