"""Which model a namespace's vectors come from, and those that are being made by another one."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE indexd.namespaces
            ADD COLUMN embedding_model    text,
            ADD COLUMN embedding_revision text,
            ADD CONSTRAINT ck_namespaces_embedding_revision
                CHECK (embedding_revision IS NULL OR embedding_model IS NOT NULL)
    """)
    op.execute("""
        COMMENT ON COLUMN indexd.namespaces.embedding_model IS
        'What the vectors were made by; NULL while nobody named it'
    """)
    op.execute("""
        COMMENT ON COLUMN indexd.namespaces.embedding_revision IS
        'Which weights of embedding_model; NULL where that is not known'
    """)
    # By the text and not by the chunk: documents that are written meanwhile keep what was made,
    # and equal texts are embedded once.
    op.execute("""
        CREATE TABLE indexd.reembedded (
            namespace          text   COLLATE "C" NOT NULL,
            text_digest        bytea  NOT NULL,
            embedding          vector NOT NULL,
            embedding_model    text   NOT NULL,
            embedding_revision text,
            CONSTRAINT pk_reembedded PRIMARY KEY (namespace, text_digest)
        )
    """)
    op.execute("""
        COMMENT ON TABLE indexd.reembedded IS
        'Vectors that `indexd reembed` made and has not put in place yet, by the SHA-256 of '
        'the chunk text. They are deleted in the transaction that puts them in place.'
    """)


def downgrade() -> None:
    op.execute("DROP TABLE indexd.reembedded")
    op.execute("""
        ALTER TABLE indexd.namespaces
            DROP COLUMN embedding_model,
            DROP COLUMN embedding_revision
    """)
