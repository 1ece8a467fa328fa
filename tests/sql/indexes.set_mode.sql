/* indexd:indexes.set_mode */
UPDATE indexd.namespaces
   SET index_mode = %(mode)s
 WHERE namespace = %(namespace)s
