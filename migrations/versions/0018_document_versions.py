"""Documents have a version and the time of their first write."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Constant defaults: no table is rewritten, and programs of the release before write on.
    op.execute("""
        ALTER TABLE indexd.documents
            ADD COLUMN version    bigint      NOT NULL DEFAULT 1,
            ADD COLUMN created_at timestamptz NOT NULL DEFAULT now()
    """)
    op.execute("""
        COMMENT ON COLUMN indexd.documents.version IS
        'One more at each change; a document that comes back goes on after the log of the forgotten'
    """)
    op.execute("""
        COMMENT ON COLUMN indexd.documents.created_at IS
        'Time of the first write by the clock of the server; of documents that were there before '
        'this column, the time of the upgrade'
    """)
    op.execute("ALTER TABLE indexd.forgotten_documents ADD COLUMN version bigint")
    op.execute("""
        COMMENT ON COLUMN indexd.forgotten_documents.version IS
        'Of the version that left; NULL where a program of the release before deleted it'
    """)
    # A program of the release before does not count versions. The next release drops the trigger.
    op.execute("""
        CREATE FUNCTION indexd.count_version() RETURNS trigger
        LANGUAGE plpgsql
        AS $$
        BEGIN
            NEW.version := OLD.version + 1;
            RETURN NEW;
        END
        $$
    """)
    op.execute("""
        COMMENT ON FUNCTION indexd.count_version IS
        'Raises the version of a document that a program of the release before replaces'
    """)
    op.execute("""
        CREATE TRIGGER count_version
        BEFORE UPDATE ON indexd.documents
        FOR EACH ROW
        WHEN (NEW.digest IS DISTINCT FROM OLD.digest AND NEW.version = OLD.version)
        EXECUTE FUNCTION indexd.count_version()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER count_version ON indexd.documents")
    op.execute("DROP FUNCTION indexd.count_version")
    op.execute("ALTER TABLE indexd.forgotten_documents DROP COLUMN version")
    op.execute("ALTER TABLE indexd.documents DROP COLUMN created_at, DROP COLUMN version")
