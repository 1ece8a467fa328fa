/* indexd:writing.upsert.add_counts */
UPDATE indexd.namespaces
   SET documents      = documents      + %(documents)s,
       chunks         = chunks         + %(chunks)s,
       chunks_removed = chunks_removed + %(removed)s,
       words_average  = coalesce(words_average, %(average)s)
 WHERE namespace = %(namespace)s
