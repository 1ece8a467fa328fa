/* indexd:forgetting.audit.events */
SELECT event_id, at, reason, kind, namespace, filter, strategy, forgotten_count, actor
  FROM indexd.forget_events
 WHERE (
        -- Without the end of a page before it, this is the first page.
        %(at)s::timestamptz IS NULL
        OR (at, event_id, namespace)
         < (%(at)s::timestamptz, %(event_id)s::uuid, %(namespace)s::text)
       )
   AND (%(namespaces)s::text[] IS NULL OR namespace = ANY(%(namespaces)s))
 ORDER BY at DESC, event_id DESC, namespace DESC
 LIMIT %(limit)s
