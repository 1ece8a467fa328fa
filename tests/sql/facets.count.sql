/* indexd:facets.count */
SELECT count(*)
  FROM indexd.documents AS document
 WHERE document.namespace = %(namespace)s
   AND true
