"""Filters look chunks up by chunk_fields, so the indexes over chunks themselves go."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

INDEXES = (
    (
        "ix_chunks_filter_keys",
        "USING gin (filter_keys)",
        "the filters tags, source_path and source_ref_origin",
    ),
    ("ix_chunks_meta", "USING gin (meta jsonb_path_ops)", "the filter meta"),
)


def upgrade() -> None:
    # The columns stay for programs of the release before, whose filters are slower from now on.
    with op.get_context().autocommit_block():
        for name, _, _ in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS indexd.{name}")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name, definition, query in INDEXES:
            # One that was cut off in the middle is there, and not valid.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS indexd.{name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON indexd.chunks {definition}")
            op.execute(f"COMMENT ON INDEX indexd.{name} IS '{query}'")
