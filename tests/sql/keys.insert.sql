/* indexd:keys.insert */
INSERT INTO indexd.api_keys (
    prefix, name, digest, scope, namespaces, created_at, expires_at
)
VALUES (
    %(prefix)s, %(name)s, %(digest)s, %(scope)s, %(namespaces)s, %(at)s, %(expires_at)s
)
ON CONFLICT DO NOTHING
