/* indexd:search.terms_set_average */
UPDATE indexd.namespaces
   SET words_average    = %(average)s,
       words_reweighing = true
 WHERE namespace = %(namespace)s
