"""What a dry run of forget found, until it expires; and the order in which the log is read."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE indexd.forget_plans (
            namespace  text        COLLATE "C" NOT NULL,
            plan_id    uuid        NOT NULL,
            filter     jsonb       NOT NULL,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            CONSTRAINT pk_forget_plans PRIMARY KEY (namespace, plan_id)
        )
    """)
    op.execute("""
        COMMENT ON TABLE indexd.forget_plans IS
        'Dry runs of forget that may still be carried out. The namespace is that of the filter, '
        'empty for all.'
    """)
    op.execute("""
        CREATE TABLE indexd.forget_plan_documents (
            namespace   text        COLLATE "C" NOT NULL,
            plan_id     uuid        NOT NULL,
            doc_id      text        COLLATE "C" NOT NULL,
            ingested_at timestamptz NOT NULL,
            digest      bytea       NOT NULL,
            CONSTRAINT pk_forget_plan_documents PRIMARY KEY (namespace, plan_id, doc_id)
        )
    """)
    op.execute("""
        COMMENT ON TABLE indexd.forget_plan_documents IS
        'The documents of a plan, in the version that was seen: ingested_at and digest.'
    """)
    op.execute("""
        CREATE INDEX ix_forget_plan_documents_plan
            ON indexd.forget_plan_documents (plan_id)
    """)
    op.execute("""
        COMMENT ON INDEX indexd.ix_forget_plan_documents_plan IS
        'the namespaces a plan reaches; dropping it once it is carried out or expired'
    """)
    op.execute("""
        CREATE INDEX ix_forget_events_at
            ON indexd.forget_events (at DESC, event_id DESC, namespace DESC)
    """)
    op.execute("""
        COMMENT ON INDEX indexd.ix_forget_events_at IS
        'GET /index/audit: the newest events, page by page'
    """)


def downgrade() -> None:
    op.execute("DROP INDEX indexd.ix_forget_events_at")
    op.execute("DROP TABLE indexd.forget_plan_documents")
    op.execute("DROP TABLE indexd.forget_plans")
