/* indexd:keys.notify */
SELECT pg_notify(%(channel)s, '')
