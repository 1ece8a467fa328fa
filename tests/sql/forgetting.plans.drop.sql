/* indexd:forgetting.plans.drop */
DELETE FROM indexd.forget_plans
 WHERE plan_id = ANY(%(plan_ids)s)
