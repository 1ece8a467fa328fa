/* indexd:policies.lock */
LOCK TABLE indexd.retention_policies IN SHARE ROW EXCLUSIVE MODE
