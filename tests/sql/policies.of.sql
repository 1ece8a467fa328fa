/* indexd:policies.of */
    SELECT half_life_seconds, max_items, max_age_seconds, purge_strategy, grace_seconds, semantic
      FROM indexd.retention_policies
     WHERE retention_policies.namespace IN (%(namespace)s, '')
     ORDER BY retention_policies.namespace DESC
     LIMIT 1
