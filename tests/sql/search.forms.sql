/* indexd:search.forms */
SELECT form,
       array_agg(lexeme) AS lexemes
  FROM unnest(%(forms)s::text[]) AS form
 CROSS JOIN LATERAL indexd.lexemes(form)
 WHERE lexeme = ANY(%(lexemes)s)
 GROUP BY form
