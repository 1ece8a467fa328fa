/* indexd:policies.in_force */
SELECT namespace, half_life_seconds, max_items, max_age_seconds, purge_strategy, grace_seconds, semantic, policy_hash, source
  FROM indexd.retention_policies
 ORDER BY namespace
