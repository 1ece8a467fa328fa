"""Whether a namespace's HNSW index is left to the keeper."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE indexd.namespaces
            ADD COLUMN index_mode text NOT NULL DEFAULT 'auto',
            ADD CONSTRAINT ck_namespaces_index_mode
                CHECK (index_mode IN ('auto', 'always', 'never'))
    """)
    op.execute("""
        COMMENT ON COLUMN indexd.namespaces.index_mode IS
        'auto: by size; always, never: as an admin decided with `indexd index build | drop`'
    """)


def downgrade() -> None:
    op.execute("""
        DO $$
        DECLARE
            index_name text;
        BEGIN
            FOR index_name IN
                SELECT relname FROM pg_class JOIN pg_index ON indexrelid = pg_class.oid
                 WHERE indrelid = 'indexd.chunks'::regclass AND starts_with(relname, 'hnsw_')
            LOOP
                EXECUTE format('DROP INDEX indexd.%I', index_name);
            END LOOP;
        END
        $$
    """)
    op.execute("ALTER TABLE indexd.namespaces DROP COLUMN index_mode")
