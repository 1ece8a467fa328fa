"""A counter of chunks gets the name of one: index_built_at becomes chunks_removed_at_build."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The program of the release before reads and writes index_built_at alone, so that column stays
    # until the next release. This release writes both and reads the greater one: the counter only
    # grows, so the greater one is the later one, whichever program wrote it.
    op.execute("""
        ALTER TABLE indexd.namespaces
            ADD COLUMN chunks_removed_at_build bigint NOT NULL DEFAULT 0
    """)
    op.execute("""
        UPDATE indexd.namespaces
           SET chunks_removed_at_build = index_built_at
    """)
    op.execute("""
        COMMENT ON COLUMN indexd.namespaces.chunks_removed_at_build IS
        'Number of chunks: chunks_removed when the HNSW index was last built; what was removed '
        'since, its graph still holds'
    """)
    op.execute("""
        COMMENT ON COLUMN indexd.namespaces.index_built_at IS
        'Deprecated, for programs of the release before: chunks_removed_at_build under its old '
        'name. The next release drops it.'
    """)


def downgrade() -> None:
    op.execute("""
        UPDATE indexd.namespaces
           SET index_built_at = greatest(index_built_at, chunks_removed_at_build)
    """)
    op.execute("""
        COMMENT ON COLUMN indexd.namespaces.index_built_at IS
        'chunks_removed when the HNSW index was last built; what was removed since, its graph '
        'still holds'
    """)
    op.execute("ALTER TABLE indexd.namespaces DROP COLUMN chunks_removed_at_build")
