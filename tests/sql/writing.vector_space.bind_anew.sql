/* indexd:writing.vector_space.bind_anew */
UPDATE indexd.namespaces
   SET dimension          = %(dimension)s,
       embedding_model    = %(model)s,
       embedding_revision = %(revision)s,
       weak               = false,
       index_serves       = false
 WHERE namespace = %(namespace)s
