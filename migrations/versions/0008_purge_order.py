"""What retention finds the next document to leave by."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE INDEX ix_documents_ingested_at
            ON indexd.documents (namespace, ingested_at, doc_id)
    """)
    op.execute("""
        COMMENT ON INDEX indexd.ix_documents_ingested_at IS
        'retention: the oldest documents, and those past their age; forget older_than'
    """)
    # Among documents of one half-life the oldest has the lowest decay: the next to leave is the
    # head of one of these lists, of which there are as many as there are half-lives.
    op.execute("""
        CREATE INDEX ix_documents_half_life
            ON indexd.documents (namespace, half_life_seconds, ingested_at, doc_id)
    """)
    op.execute("""
        COMMENT ON INDEX indexd.ix_documents_half_life IS
        'retention by lowest_score: the half-lives present, and the oldest documents of each'
    """)
    op.execute("""
        ALTER TABLE indexd.retention_policies
            ADD COLUMN grace_seconds double precision NOT NULL DEFAULT 0,
            ADD COLUMN semantic      jsonb,
            ADD CONSTRAINT ck_retention_policies_grace
                CHECK (grace_seconds >= 0 AND grace_seconds < 'infinity')
    """)


def downgrade() -> None:
    op.execute("""
        ALTER TABLE indexd.retention_policies
            DROP COLUMN semantic,
            DROP COLUMN grace_seconds
    """)
    op.execute("DROP INDEX indexd.ix_documents_half_life")
    op.execute("DROP INDEX indexd.ix_documents_ingested_at")
