"""The rights of the database roles that do not own the schema."""

from psycopg import sql

from indexd.db.schema import SCHEMA

SERVICE_GRANTS = """\
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};
REVOKE INSERT, UPDATE, DELETE ON {schema}.alembic_version FROM {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA {schema}
    GRANT EXECUTE ON FUNCTIONS TO {role};
"""
"""For a role that serves, and neither migrates nor builds indexes. The default privileges apply to
objects that the role which runs these statements creates later: run them as the migrating role.
"""


def service_grants(role: str) -> str:
    """The SQL that lets a role serve."""
    names = {"schema": sql.Identifier(SCHEMA), "role": sql.Identifier(role)}
    return sql.SQL(SERVICE_GRANTS).format(**names).as_string()
