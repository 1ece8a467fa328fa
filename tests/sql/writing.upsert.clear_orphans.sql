/* indexd:writing.upsert.clear_orphans */
WITH orphaned_relevance AS (
    DELETE FROM indexd.relevance
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(doc_ids)s)
),
orphaned_fields AS (
    DELETE FROM indexd.chunk_fields
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(doc_ids)s)
),
orphaned_chunks AS (
    DELETE FROM indexd.chunks
     WHERE namespace = %(namespace)s
       AND doc_id = ANY(%(doc_ids)s)
    RETURNING doc_id
)
SELECT doc_id, count(*) AS chunks
  FROM orphaned_chunks
 GROUP BY doc_id
