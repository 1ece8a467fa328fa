/* indexd:search.terms_lock */
SELECT words_average
  FROM indexd.namespaces
 WHERE namespace = %(namespace)s
   FOR UPDATE
