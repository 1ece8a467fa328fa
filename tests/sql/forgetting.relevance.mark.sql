/* indexd:forgetting.relevance.mark */
UPDATE indexd.relevance
   SET irrelevant_since = CASE WHEN irrelevant_since IS NULL THEN %(at)s END
  FROM indexd.documents
 WHERE relevance.namespace = %(namespace)s
   AND relevance.doc_id = ANY(%(doc_ids)s)
   AND documents.namespace = %(namespace)s
   AND documents.doc_id = relevance.doc_id
   AND CASE
           -- Not marked: mark it where enough searches found it and none found it well.
           WHEN irrelevant_since IS NULL
               THEN judged_useful IS NOT TRUE
                AND best_score  <  %(min_score)s
                AND exposures   >= %(min_exposures)s
                AND days        >= %(min_days)s
                AND ingested_at <= %(old_enough)s
           -- Marked: unmark it where a search has found it well since.
           ELSE judged_useful IS NOT FALSE
                AND best_score  >= %(min_score)s
       END
