/* indexd:search.terms_count */
INSERT INTO indexd.term_counts (namespace, term, chunks)
SELECT %(namespace)s, term, count(*)
  FROM indexd.chunk_fields
 CROSS JOIN LATERAL unnest(terms) AS term
 WHERE namespace = %(namespace)s
 GROUP BY term
