"""Text search looks chunks up by their terms."""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

INDEXES = (
    (
        "ix_chunk_fields_terms",
        "indexd.chunk_fields USING gin (terms)",
        "text search: the chunks that hold the rarest words of a query",
    ),
    (
        "ix_chunk_fields_unweighed",
        "indexd.chunk_fields (namespace, doc_id, ordinal) WHERE lex IS NULL",
        "chunks whose words are not weighed yet, for text search and the index keeper",
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
