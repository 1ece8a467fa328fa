/* indexd:search.terms_counted */
UPDATE indexd.namespaces
   SET words_chunks     = %(chunks)s,
       words_removed    = %(removed)s,
       words_counted_at = CASE WHEN %(chunks)s >= %(few)s THEN %(at)s::timestamptz END
 WHERE namespace = %(namespace)s
