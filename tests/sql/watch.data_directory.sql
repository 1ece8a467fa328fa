/* indexd:watch.data_directory */
SELECT CASE
           WHEN pg_has_role('pg_read_all_settings', 'USAGE')
           THEN current_setting('data_directory')
       END AS data_directory
