/* indexd:keys.clock */
SELECT clock_timestamp() AS at
