/* indexd:search.terms */
        WITH asked AS MATERIALIZED (
            SELECT said.word, said.place, stem.lexeme, stem.share,
                   indexd.term(%(namespace)s, stem.lexeme) AS term
              FROM unnest(%(words)s::text[]) WITH ORDINALITY AS said (word, place)
             CROSS JOIN LATERAL indexd.lexemes(said.word) AS stem
        ),
        counted AS MATERIALIZED (
            SELECT term, count(*) AS chunks
              FROM indexd.chunk_fields
             CROSS JOIN LATERAL unnest(terms) AS term
             WHERE namespace = %(namespace)s
               AND terms && ARRAY(SELECT term FROM asked)
             GROUP BY term
        )
        SELECT asked.word, asked.lexeme, asked.share, asked.term,
               coalesce(counted.chunks, 0) AS chunks,
               namespaces.chunks AS total,
               EXISTS (
                SELECT 1
                  FROM indexd.chunk_fields
                 WHERE namespace = %(namespace)s
                   AND lex IS NULL
               ) AS unweighed
          FROM asked
          LEFT JOIN counted USING (term)
          JOIN indexd.namespaces
            ON namespaces.namespace = %(namespace)s
         ORDER BY asked.place, asked.lexeme COLLATE "C"
