/* indexd:writing.reembed.change_space */
UPDATE indexd.namespaces
   SET dimension          = %(dimension)s,
       embedding_model    = %(model)s,
       embedding_revision = %(revision)s,
       index_serves       = coalesce(index_serves AND dimension = %(dimension)s, false)
 WHERE namespace = %(namespace)s
