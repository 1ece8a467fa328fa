/* indexd:search.terms_reweighed */
UPDATE indexd.namespaces
   SET words_reweighing = false
 WHERE namespace = %(namespace)s
