/* indexd:forgetting.forget.reached */
SELECT namespace
  FROM indexd.namespaces
 WHERE documents > 0
 ORDER BY namespace
