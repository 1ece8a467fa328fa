/* indexd:keys.find */
SELECT prefix, name, digest, scope, namespaces, created_at, expires_at, revoked_at
  FROM indexd.api_keys
 WHERE prefix = %(prefix)s
