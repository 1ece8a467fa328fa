"""The database: pool, connections, schema, migrations, and the PostgreSQL that comes along."""
