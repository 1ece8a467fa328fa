/* indexd:keys.every */
SELECT prefix, name, digest, scope, namespaces, created_at, expires_at, revoked_at
  FROM indexd.api_keys
 ORDER BY created_at, prefix
