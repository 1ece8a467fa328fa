/* indexd:forgetting.plans.first_documents */
SELECT doc_id, namespace, ingested_at
  FROM indexd.forget_plan_documents
 WHERE namespace = %(namespace)s
   AND plan_id = %(plan_id)s
 ORDER BY doc_id
 LIMIT %(listed)s
