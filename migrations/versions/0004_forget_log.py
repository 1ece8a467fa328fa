"""The log of everything that left."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE indexd.forget_events (
            namespace       text        COLLATE "C" NOT NULL,
            event_id        uuid        NOT NULL,
            at              timestamptz NOT NULL,
            kind            text        NOT NULL,
            reason          text        NOT NULL,
            filter          jsonb,
            strategy        text,
            forgotten_count bigint      NOT NULL,
            actor           text        NOT NULL,
            CONSTRAINT pk_forget_events PRIMARY KEY (namespace, event_id),
            CONSTRAINT ck_forget_events_kind CHECK (
                kind IN ('manual', 'ttl', 'retention', 'semantic', 'delete')
            )
        )
    """)
    op.execute("""
        COMMENT ON TABLE indexd.forget_events IS
        'One row per deletion and namespace, written in the transaction that deletes. '
        'Holds no text and no vector of what was forgotten.'
    """)
    op.execute("""
        CREATE TABLE indexd.forgotten_documents (
            namespace   text        COLLATE "C" NOT NULL,
            event_id    uuid        NOT NULL,
            doc_id      text        COLLATE "C" NOT NULL,
            ingested_at timestamptz NOT NULL,
            digest      bytea       NOT NULL,
            CONSTRAINT pk_forgotten_documents PRIMARY KEY (namespace, event_id, doc_id)
        )
    """)
    op.execute("""
        COMMENT ON TABLE indexd.forgotten_documents IS
        'Which documents an event removed; digest is that of the version that left.'
    """)


def downgrade() -> None:
    op.execute("DROP TABLE indexd.forgotten_documents")
    op.execute("DROP TABLE indexd.forget_events")
