/* indexd:search.is_counted */
SELECT words_counted_at IS NOT NULL AND chunks >= %(few)s
  FROM indexd.namespaces
 WHERE namespace = %(namespace)s
