/* indexd:writing.reembed.drop_others */
DELETE FROM indexd.reembedded
 WHERE namespace = %(namespace)s
   AND (embedding_model, embedding_revision)
       IS DISTINCT FROM (%(model)s::text, %(revision)s::text)
