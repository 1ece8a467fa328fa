/* indexd:writing.upsert.add_counts */
UPDATE indexd.namespaces
   SET documents      = documents      + %(documents)s,
       chunks         = chunks         + %(chunks)s,
       chunks_removed = chunks_removed + %(removed)s
 WHERE namespace = %(namespace)s
