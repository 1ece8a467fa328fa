/* indexd:writing.vector_space.name_model */
UPDATE indexd.namespaces
   SET embedding_model    = %(model)s,
       embedding_revision = %(revision)s
 WHERE namespace = %(namespace)s
   AND dimension = %(dimension)s
   AND %(model)s::text IS NOT NULL
   AND (embedding_model IS NULL OR embedding_model = %(model)s)
   AND embedding_revision IS NULL
