/* indexd:writing.update.change */
UPDATE indexd.documents AS document
   SET version = document.version + 1,
       meta = (document.meta - %(removed)s::text[]) || %(merged)s::jsonb,
       half_life_seconds = %(half_life_seconds)s::float8,
       expires_at = %(expires_at)s::timestamptz,
       digest = sha256(document.digest || int8send(document.version + 1))
 WHERE document.namespace = %(namespace)s
   AND document.doc_id = ANY(%(chosen)s)
