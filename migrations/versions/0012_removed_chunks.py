"""How worn a namespace's HNSW index is."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE indexd.namespaces
            ADD COLUMN chunks_removed bigint NOT NULL DEFAULT 0,
            ADD COLUMN index_built_at bigint NOT NULL DEFAULT 0
    """)
    op.execute("""
        COMMENT ON COLUMN indexd.namespaces.chunks_removed IS
        'Chunks that were ever deleted or replaced'
    """)
    op.execute("""
        COMMENT ON COLUMN indexd.namespaces.index_built_at IS
        'chunks_removed when the HNSW index was last built; what was removed since, its graph '
        'still holds'
    """)


def downgrade() -> None:
    op.execute("""
        ALTER TABLE indexd.namespaces
            DROP COLUMN index_built_at,
            DROP COLUMN chunks_removed
    """)
