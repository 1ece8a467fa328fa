/* indexd:keys.revoke */
UPDATE indexd.api_keys
   SET revoked_at = %(at)s
 WHERE (name = %(key)s OR prefix = %(key)s)
   AND revoked_at IS NULL
RETURNING prefix, name, digest, scope, namespaces, created_at, expires_at, revoked_at
