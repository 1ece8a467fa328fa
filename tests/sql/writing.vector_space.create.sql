/* indexd:writing.vector_space.create */
INSERT INTO indexd.namespaces (
    namespace, dimension, embedding_model, embedding_revision, created_at
)
VALUES (%(namespace)s, %(dimension)s, %(model)s, %(revision)s, %(at)s)
ON CONFLICT (namespace) DO NOTHING
