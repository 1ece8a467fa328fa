/* indexd:forgetting.deletion.remove */
WITH
-- 1. Delete the documents with everything that belongs to them.
deleted_chunks AS (
    DELETE FROM indexd.chunks
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(condemned)s)
    RETURNING namespace
),
deleted_fields AS (
    DELETE FROM indexd.chunk_fields
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(condemned)s)
),
deleted_relevance AS (
    DELETE FROM indexd.relevance
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(condemned)s)
),
deleted_documents AS (
    DELETE FROM indexd.documents
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(condemned)s)
    RETURNING namespace, doc_id, ingested_at, digest, version
),
-- 2. Log the event, and which documents left with it: no text and no vector.
logged_documents AS (
    INSERT INTO indexd.forgotten_documents (
        namespace, event_id, doc_id, ingested_at, digest, version
    )
    SELECT namespace, %(event_id)s, doc_id, ingested_at, digest, version
      FROM deleted_documents
),
logged_event AS (
    INSERT INTO indexd.forget_events (
        namespace, event_id, at, kind, reason, filter, strategy, forgotten_count, actor
    )
    SELECT %(namespace)s, %(event_id)s, %(at)s, %(kind)s, %(reason)s, %(filter)s,
           %(strategy)s, count(*), %(actor)s
      FROM deleted_documents
)
-- 3. Lower the namespace's counters by what was deleted, not by what was asked for.
UPDATE indexd.namespaces
   SET documents      = documents      - (SELECT count(*) FROM deleted_documents),
       chunks         = chunks         - (SELECT count(*) FROM deleted_chunks),
       chunks_removed = chunks_removed + (SELECT count(*) FROM deleted_chunks)
 WHERE namespace = %(namespace)s
RETURNING (SELECT count(*) FROM deleted_documents) AS deleted
