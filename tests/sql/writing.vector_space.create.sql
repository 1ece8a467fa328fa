/* indexd:writing.vector_space.create */
INSERT INTO indexd.namespaces (
    namespace, dimension, embedding_model, embedding_revision, weak, created_at
)
VALUES (%(namespace)s, %(dimension)s, %(model)s, %(revision)s, %(weak)s, %(at)s)
ON CONFLICT (namespace) DO NOTHING
