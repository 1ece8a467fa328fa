"""Text search looks chunks up by their terms, so the index over their words goes."""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The column stays for programs of the release before, whose text search is slower from now on.
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS indexd.ix_chunks_words")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        # One that was cut off in the middle is there, and not valid.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS indexd.ix_chunks_words")
        op.execute("CREATE INDEX CONCURRENTLY ix_chunks_words ON indexd.chunks USING gin (words)")
        op.execute("COMMENT ON INDEX indexd.ix_chunks_words IS 'text search'")
