/* indexd:indexes.note_built */
UPDATE indexd.namespaces
   SET chunks_removed_at_build = %(removed)s,
       index_built_at          = %(removed)s
 WHERE namespace = %(namespace)s
