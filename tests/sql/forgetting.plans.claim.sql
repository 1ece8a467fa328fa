/* indexd:forgetting.plans.claim */
SELECT filter
  FROM indexd.forget_plans
 WHERE plan_id = %(plan_id)s
   AND expires_at > %(at)s
   FOR UPDATE
