/* indexd:writing.upsert.any_older */
SELECT EXISTS (
        SELECT
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND ingested_at < %(limit)s
       ) AS any_older
