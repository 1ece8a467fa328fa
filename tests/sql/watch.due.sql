/* indexd:watch.due */
SELECT namespaces.namespace,
       aged.expired + own.hidden AS expired,
       own.hidden,
       coalesce(
           greatest(namespaces.documents - aged.expired - own.hidden - policy.max_items, 0), 0
       ) AS surplus
  FROM indexd.namespaces
  JOIN indexd.policies_in_force AS policy USING (namespace)
 CROSS JOIN LATERAL (
        SELECT count(*) AS expired
          FROM (
                SELECT
                  FROM indexd.documents
                 WHERE documents.namespace = namespaces.namespace
                   AND documents.ingested_at < CASE
                           -- A longer age reaches beyond the first year of a timestamp.
                           WHEN policy.max_age_seconds < 6e10
                           THEN %(at)s::timestamptz
                                - policy.max_age_seconds * interval '1 second'
                           ELSE '-infinity'
                       END
                   AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
                 LIMIT %(counted)s
               ) AS old
       ) AS aged
 CROSS JOIN LATERAL (
        SELECT count(*) AS hidden
          FROM (
                SELECT
                  FROM indexd.documents
                 WHERE documents.namespace = namespaces.namespace
                   AND documents.expires_at <= %(at)s::timestamptz
                 LIMIT %(counted)s
               ) AS gone
       ) AS own
 WHERE namespaces.documents > 0
