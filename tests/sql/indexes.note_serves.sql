/* indexd:indexes.note_serves */
UPDATE indexd.namespaces
   SET index_serves = %(serves)s
 WHERE namespace = %(namespace)s
   -- An index for another dimension serves no search.
   AND (dimension = %(dimension)s OR NOT %(serves)s)
