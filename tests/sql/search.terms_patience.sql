/* indexd:search.terms_patience */ SET LOCAL lock_timeout = '2s'
