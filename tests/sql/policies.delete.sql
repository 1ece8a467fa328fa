/* indexd:policies.delete */
DELETE FROM indexd.retention_policies
