/* indexd:policies.insert */
INSERT INTO indexd.retention_policies (
    namespace, half_life_seconds, max_items, max_age_seconds, purge_strategy,
    grace_seconds, semantic, policy_hash, source
)
SELECT sent.*, %(hash)s, %(source)s
  FROM unnest(
        %(namespace)s::text[], %(half_life_seconds)s::float8[], %(max_items)s::bigint[],
        %(max_age_seconds)s::float8[], %(purge_strategy)s::text[],
        %(grace_seconds)s::float8[], %(semantic)s::jsonb[]
       ) AS sent
