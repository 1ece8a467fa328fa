/* indexd:forgetting.plans.doc_ids */
SELECT doc_id
  FROM indexd.forget_plan_documents
 WHERE namespace = %(namespace)s
   AND plan_id = %(plan_id)s
 ORDER BY doc_id
