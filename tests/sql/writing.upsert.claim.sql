/* indexd:writing.upsert.claim */
WITH policy AS MATERIALIZED (
    SELECT half_life_seconds, max_items, max_age_seconds, purge_strategy, grace_seconds, semantic
      FROM indexd.retention_policies
     WHERE retention_policies.namespace IN (%(namespace)s, '')
     ORDER BY retention_policies.namespace DESC
     LIMIT 1
),
-- With max_items the number of documents must be exact: this lock excludes other writers.
alone AS (
    SELECT documents, generation
      FROM indexd.namespaces
     WHERE namespace = %(namespace)s
       AND CASE
           WHEN %(dimension)s::int IS NULL
           THEN documents > 0 OR dimension IS NULL
           ELSE dimension = %(dimension)s
            AND CASE
                   WHEN %(model)s::text IS NULL
                   THEN documents > 0 OR embedding_model IS NULL
                   ELSE embedding_model = %(model)s
                    AND (%(revision)s::text IS NULL OR embedding_revision = %(revision)s)
                END
       END
       AND (writes_paused_until IS NULL OR writes_paused_until <= %(at)s)
       AND EXISTS (SELECT FROM policy WHERE max_items IS NOT NULL)
       FOR NO KEY UPDATE
),
-- Without it this lock admits other writers and their counts. It excludes only a change of
-- the vector space.
shared AS (
    SELECT documents, generation
      FROM indexd.namespaces
     WHERE namespace = %(namespace)s
       AND CASE
           WHEN %(dimension)s::int IS NULL
           THEN documents > 0 OR dimension IS NULL
           ELSE dimension = %(dimension)s
            AND CASE
                   WHEN %(model)s::text IS NULL
                   THEN documents > 0 OR embedding_model IS NULL
                   ELSE embedding_model = %(model)s
                    AND (%(revision)s::text IS NULL OR embedding_revision = %(revision)s)
                END
       END
       AND (writes_paused_until IS NULL OR writes_paused_until <= %(at)s)
       AND NOT EXISTS (SELECT FROM policy WHERE max_items IS NOT NULL)
       FOR KEY SHARE
)
SELECT policy.*, claimed.documents, claimed.generation,
       document.doc_id, document.digest, document.ingested_at, document.chunk_count,
       document.version, document.expires_at,
       EXISTS (
            SELECT
              FROM indexd.documents AS expired
             WHERE expired.namespace = %(namespace)s
               AND expired.expires_at <= %(at)s
       ) AS any_expired
  FROM (SELECT * FROM alone UNION ALL SELECT * FROM shared) AS claimed
  LEFT JOIN policy
    ON true
  LEFT JOIN indexd.documents AS document
    ON document.namespace = %(namespace)s
   AND document.doc_id = ANY(%(doc_ids)s)
