/* indexd:policies.source */
SELECT policy_hash, source
  FROM indexd.retention_policies
 WHERE namespace = %(defaults)s
