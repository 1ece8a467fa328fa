/* indexd:orphans.delete_forgotten */
DELETE FROM indexd.forgotten_documents
 WHERE namespace = %(namespace)s
   AND NOT EXISTS (
        SELECT 1
          FROM indexd.forget_events AS event
         WHERE event.namespace = forgotten_documents.namespace
           AND event.event_id = forgotten_documents.event_id
       )
