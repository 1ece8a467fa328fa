/* indexd:writing.vector_space.pause */
UPDATE indexd.namespaces
   SET writes_paused_until = %(until)s
 WHERE namespace = %(namespace)s
