/* indexd:namespaces.facts */ SELECT namespaces.namespace,
                   dimension,
                   chunks,
                   policy.half_life_seconds,
                   EXISTS (
                    SELECT 1
                      FROM pg_index
                     WHERE indexrelid = to_regclass(%(index)s)
                       AND indisvalid
                   ) AS indexed,
                   EXISTS (
                    SELECT 1
                      FROM indexd.documents
                     WHERE documents.namespace = %(namespace)s
                       AND documents.expires_at <= %(unexpired_at)s
                   ) AS expired,
                   coalesce(policy.semantic, false) AS semantic,
                   embedding_model AS model_name,
                   embedding_revision AS model_revision
              FROM indexd.namespaces
              LEFT JOIN LATERAL (
        SELECT half_life_seconds, semantic IS NOT NULL AS semantic
          FROM indexd.retention_policies
         WHERE retention_policies.namespace IN (%(namespace)s, '')
         ORDER BY retention_policies.namespace DESC
         LIMIT 1
                   ) AS policy
                ON true
             WHERE namespaces.namespace = %(namespace)s
               AND documents > 0
