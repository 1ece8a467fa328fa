"""Lists of documents by their first write, and the highest version of one that left."""

from contextlib import nullcontext

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The tables may be large: built so, an index keeps no writer waiting. Nothing else is in this
    # migration, because what was done before the block stays when it is cut off. What is printed as
    # SQL may run as one transaction, in which nothing can be built so.
    printed = op.get_context().as_sql
    how = "" if printed else "CONCURRENTLY"
    with nullcontext() if printed else op.get_context().autocommit_block():
        for name, definition, query in (
            (
                "ix_documents_created_at",
                "indexd.documents (namespace, created_at, doc_id)",
                "lists by the time of the first write",
            ),
            (
                "ix_forgotten_documents_version",
                "indexd.forgotten_documents (namespace, doc_id, version)",
                "the highest version of a document that left",
            ),
        ):
            # One that was cut off in the middle is there, and not valid.
            op.execute(f"DROP INDEX {how} IF EXISTS indexd.{name}")
            op.execute(f"CREATE INDEX {how} {name} ON {definition}")
            op.execute(f"COMMENT ON INDEX indexd.{name} IS '{query}'")


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS indexd.ix_forgotten_documents_version")
    op.execute("DROP INDEX IF EXISTS indexd.ix_documents_created_at")
