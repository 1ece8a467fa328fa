/* indexd:namespaces.holds_texts_alone */
SELECT EXISTS (
        SELECT 1
          FROM indexd.namespaces
         WHERE namespace = %(namespace)s
           AND documents > 0
           AND dimension IS NULL
       )
