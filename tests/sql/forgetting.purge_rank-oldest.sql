/* indexd:forgetting.purge_rank */
WITH RECURSIVE
own AS MATERIALIZED (
    SELECT ingested_at, doc_id, 'retention' AS reason
      FROM indexd.documents
     WHERE documents.namespace = %(namespace)s
       AND documents.doc_id = %(doc_id)s
       AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
),
-- Documents past their age come first in this order, those in their grace last. So of a
-- document that may leave, both counts are the same. An index has all of them, and another
-- those that expired.
all_before AS (
    SELECT count(*) AS documents
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND (ingested_at, doc_id)
         < ((SELECT ingested_at FROM own), (SELECT doc_id FROM own) COLLATE "C")
),
expired_before AS (
    SELECT count(*) AS documents
      FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND expires_at <= %(at)s
       AND (ingested_at, doc_id)
         < ((SELECT ingested_at FROM own), (SELECT doc_id FROM own) COLLATE "C")
),
counted AS (
    SELECT all_before.documents - expired_before.documents AS before,
           all_before.documents - expired_before.documents AS leaving_before
      FROM all_before
     CROSS JOIN expired_before
)
SELECT before,
       leaving_before,
       own.reason,
       NOT coalesce(own.ingested_at < %(expires_before)s::timestamptz, false) AND own.ingested_at <= %(graced_after)s AS may_leave
  FROM own
 CROSS JOIN counted
