"""API keys, hashed."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE indexd.api_keys (
            prefix     text        COLLATE "C" NOT NULL,
            name       text        COLLATE "C" NOT NULL,
            digest     bytea       NOT NULL,
            scope      text        NOT NULL,
            namespaces text[],
            created_at timestamptz NOT NULL,
            expires_at timestamptz,
            revoked_at timestamptz,
            CONSTRAINT pk_api_keys PRIMARY KEY (prefix),
            CONSTRAINT ck_api_keys_scope CHECK (scope IN ('read', 'write', 'admin')),
            CONSTRAINT ck_api_keys_namespaces CHECK (namespaces <> '{}')
        )
    """)
    op.execute("""
        COMMENT ON TABLE indexd.api_keys IS
        'Who may call the API. prefix is the start of the key, to recognise it by; digest is the '
        'SHA-256 of the whole. namespaces limits the key to these; null is all. Servers follow '
        'changes by NOTIFY indexd_api_keys, and look every second.'
    """)
    op.execute("""
        CREATE UNIQUE INDEX ux_api_keys_name
            ON indexd.api_keys (name)
         WHERE revoked_at IS NULL
    """)
    op.execute("""
        COMMENT ON INDEX indexd.ux_api_keys_name IS
        'one key of a name that is not revoked; `indexd keys revoke NAME`'
    """)


def downgrade() -> None:
    op.execute("DROP TABLE indexd.api_keys")
