/* indexd:forgetting.plans.drop_batch */
DELETE FROM indexd.forget_plan_documents
 WHERE plan_id = %(plan_id)s
   AND (namespace, doc_id) IN (
        SELECT namespace, doc_id
          FROM indexd.forget_plan_documents
         WHERE plan_id = %(plan_id)s
         LIMIT %(limit)s
       )
