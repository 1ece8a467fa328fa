"""Filters look chunks up by their fields, and expired documents are found by their time."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

INDEXES = (
    (
        "ix_chunk_fields_filter_keys",
        "indexd.chunk_fields USING gin (filter_keys)",
        "the filters tags, source_path and source_ref_origin",
    ),
    (
        "ix_chunk_fields_meta",
        "indexd.chunk_fields USING gin (meta jsonb_path_ops)",
        "the filter meta, of chunks and documents",
    ),
    (
        "ix_documents_expires_at",
        "indexd.documents (namespace, expires_at, doc_id) WHERE expires_at IS NOT NULL",
        "the documents that expired, and those that expire next",
    ),
)


def upgrade() -> None:
    # Built so, an index keeps no writer waiting; built after the table is filled, it takes less
    # time. Nothing else is in this migration: what was done before it was cut off stays.
    with op.get_context().autocommit_block():
        for name, definition, query in INDEXES:
            # One that was cut off in the middle is there, and not valid.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS indexd.{name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
            op.execute(f"COMMENT ON INDEX indexd.{name} IS '{query}'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name, _, _ in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS indexd.{name}")
