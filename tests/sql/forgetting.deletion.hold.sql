/* indexd:forgetting.deletion.hold */
SELECT
  FROM indexd.namespaces
 WHERE namespace = %(namespace)s
   AND (
    SELECT max_items
      FROM indexd.retention_policies
     WHERE retention_policies.namespace IN (%(namespace)s, '')
     ORDER BY retention_policies.namespace DESC
     LIMIT 1
) IS NOT NULL
   FOR NO KEY UPDATE
