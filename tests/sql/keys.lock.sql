/* indexd:keys.lock */
LOCK TABLE indexd.api_keys IN SHARE ROW EXCLUSIVE MODE
