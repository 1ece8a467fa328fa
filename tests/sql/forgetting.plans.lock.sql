/* indexd:forgetting.plans.lock */
SELECT planned.doc_id,
       planned.ingested_at,
       document.digest = planned.digest
       AND document.ingested_at = planned.ingested_at
       AND document.version = coalesce(planned.version, document.version) AS unchanged
  FROM indexd.forget_plan_documents AS planned
  JOIN indexd.documents AS document
    ON document.namespace = %(namespace)s
   AND document.doc_id = planned.doc_id
 WHERE planned.namespace = %(namespace)s
   AND planned.plan_id = %(plan_id)s
 ORDER BY planned.doc_id
   FOR UPDATE OF document
