/* indexd:search.terms_average */
SELECT greatest(avg(length), 1)::float8
  FROM indexd.chunk_fields
 WHERE namespace = %(namespace)s
   AND length IS NOT NULL
