/* indexd:search.terms_clear */
DELETE FROM indexd.term_counts
 WHERE namespace = %(namespace)s
