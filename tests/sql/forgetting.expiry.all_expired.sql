/* indexd:forgetting.expiry.all_expired */
SELECT EXISTS (
        SELECT
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND expires_at <= %(at)s
       )
   AND NOT EXISTS (
        SELECT
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND (documents.expires_at IS NULL OR documents.expires_at > %(at)s::timestamptz)
       ) AS all_expired
