/* indexd:forgetting.plans.namespaces */
SELECT DISTINCT namespace
  FROM indexd.forget_plan_documents
 WHERE plan_id = %(plan_id)s
 ORDER BY namespace
