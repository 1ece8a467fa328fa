/* indexd:forgetting.plans.drop_documents */
DELETE FROM indexd.forget_plan_documents
 WHERE plan_id = ANY(%(plan_ids)s)
