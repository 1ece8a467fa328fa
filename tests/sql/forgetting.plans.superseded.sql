/* indexd:forgetting.plans.superseded */
WITH sized AS (
    -- Plans of the namespace, newest first: expired ones apart from those that can be carried
    -- out. `documents` is the running total; the newest plan does not count, however large.
    SELECT plan_id,
           expires_at,
           row_number() OVER age AS place,
           sum(CASE WHEN plan_id = %(newest)s THEN 0 ELSE documents END) OVER age
               AS documents
      FROM indexd.forget_plans
     CROSS JOIN LATERAL (
            SELECT count(*) AS documents
              FROM indexd.forget_plan_documents
             WHERE forget_plan_documents.plan_id = forget_plans.plan_id
           ) AS size
     WHERE namespace = %(namespace)s
    WINDOW age AS (
        PARTITION BY expires_at > %(at)s
        ORDER BY plan_id = %(newest)s DESC, created_at DESC, plan_id
    )
)
SELECT plan_id
  FROM indexd.forget_plans
 WHERE plan_id <> %(newest)s
   AND (
        expires_at <= %(at)s
        OR plan_id IN (
            SELECT plan_id
              FROM sized
             WHERE place > %(kept_plans)s
                OR documents > %(kept_documents)s
           )
       )
 ORDER BY plan_id
   -- A plan that is being carried out at this moment stays.
   FOR UPDATE SKIP LOCKED
