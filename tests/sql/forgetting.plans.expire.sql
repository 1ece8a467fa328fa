/* indexd:forgetting.plans.expire */
UPDATE indexd.forget_plans
   SET expires_at = created_at
 WHERE plan_id = %(plan_id)s
   AND expires_at > created_at
