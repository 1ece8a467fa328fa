"""The database: pool, connections, schema, migrations, and the embedded PostgreSQL."""
