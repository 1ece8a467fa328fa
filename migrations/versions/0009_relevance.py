"""What searches showed of a document's worth."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Beside the documents, for every search that finds something updates some of these rows.
    op.execute("""
        CREATE TABLE indexd.relevance (
            namespace        text        COLLATE "C" NOT NULL,
            doc_id           text        COLLATE "C" NOT NULL,
            exposures        bigint      NOT NULL,
            hits             bigint      NOT NULL,
            days             integer     NOT NULL,
            last_exposed_at  timestamptz NOT NULL,
            best_score       double precision NOT NULL,
            smoothed_score   double precision NOT NULL,
            judged_useful    boolean,
            irrelevant_since timestamptz,
            CONSTRAINT pk_relevance PRIMARY KEY (namespace, doc_id),
            CONSTRAINT ck_relevance_smoothed_score CHECK (smoothed_score BETWEEN 0 AND 1)
        ) WITH (fillfactor = 70)
    """)
    op.execute("""
        COMMENT ON TABLE indexd.relevance IS
        'How often a document was among the results of searches (exposures, on how many days), '
        'how often with a good score (hits), and the best and the smoothed similarity. Written in '
        'the background; gone with the document, and when its content changes.'
    """)
    op.execute("""
        COMMENT ON COLUMN indexd.relevance.judged_useful IS
        'The last word of POST /index/feedback; it outweighs what was counted'
    """)
    op.execute("""
        CREATE INDEX ix_relevance_irrelevant
            ON indexd.relevance (namespace, irrelevant_since, doc_id)
         WHERE irrelevant_since IS NOT NULL
    """)
    op.execute("""
        COMMENT ON INDEX indexd.ix_relevance_irrelevant IS
        'the documents marked irrelevant, which retention takes first; GET /index/irrelevant'
    """)


def downgrade() -> None:
    op.execute("DROP TABLE indexd.relevance")
