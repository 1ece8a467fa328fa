/* indexd:keys.followers */
SELECT count(*) AS following,
       -- Both columns are NULL where this role may not see another role's sessions.
       count(*) FILTER (
           WHERE (query_start > %(since)s AND state = 'idle') IS NOT TRUE
       ) AS stale
  FROM pg_stat_activity
 WHERE application_name = %(follower)s
   AND datname = current_database()
