/* indexd:forgetting.plans.next_expired */
SELECT plan_id
  FROM indexd.forget_plans
 WHERE expires_at <= %(at)s
 LIMIT 1
   FOR UPDATE SKIP LOCKED
