"""Writing documents: upsert, rows, the vector space of a namespace, re-embedding."""
