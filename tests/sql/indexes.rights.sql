/* indexd:indexes.rights */
SELECT
CASE WHEN pg_is_in_recovery() THEN 'it is a standby'
     WHEN current_setting('default_transaction_read_only')::boolean
     THEN 'default_transaction_read_only is on'
END AS read_only,
       current_user AS role,
       -- CREATE INDEX needs the rights of the table's owner, and CREATE in the schema.
       pg_has_role(relowner, 'USAGE')
       AND has_schema_privilege(relnamespace, 'CREATE') AS allowed
  FROM pg_class
 WHERE oid = 'indexd.chunks'::regclass
