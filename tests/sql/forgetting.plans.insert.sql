/* indexd:forgetting.plans.insert */
INSERT INTO indexd.forget_plans (namespace, plan_id, filter, created_at, expires_at)
VALUES (%(namespace)s, %(plan_id)s, %(filter)s, %(at)s, %(expires_at)s)
