/* indexd:writing.reembed.keep */
INSERT INTO indexd.reembedded (
    namespace, text_digest, embedding, embedding_model, embedding_revision
)
SELECT %(namespace)s, made.*, %(model)s, %(revision)s
  FROM unnest(%(digests)s::bytea[], %(vectors)s::vector[]) AS made
ON CONFLICT (namespace, text_digest) DO NOTHING
