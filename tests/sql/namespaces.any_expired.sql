/* indexd:namespaces.any_expired */
SELECT EXISTS (
        SELECT 1
          FROM indexd.documents
         WHERE namespace = %(namespace)s
           AND expires_at <= %(unexpired_at)s
       )
