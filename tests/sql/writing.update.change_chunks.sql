/* indexd:writing.update.change_chunks */
UPDATE indexd.chunks
   SET half_life_seconds = %(half_life_seconds)s::float8
 WHERE namespace = %(namespace)s
   AND doc_id = ANY(%(chosen)s)
   AND half_life_seconds IS DISTINCT FROM %(half_life_seconds)s::float8
