"""What lets a search bound the decay of chunks it has not seen."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Documents with a half-life of their own must not loosen the bound for all: chunks are classed
    # by its power of two, and each class present in a namespace is swept to a cutoff of its own.
    op.execute("""
        ALTER TABLE indexd.chunks
            ADD COLUMN half_life_class smallint NOT NULL
                GENERATED ALWAYS AS (
                    CASE
                        WHEN half_life_seconds IS NULL THEN 32767
                        ELSE ceil(ln(half_life_seconds) / ln(2::double precision))
                    END::smallint
                ) STORED
    """)
    op.execute("""
        COMMENT ON COLUMN indexd.chunks.half_life_class IS
        'The own half-life is at most 2 ^ half_life_class seconds; 32767 without one'
    """)
    op.execute("""
        CREATE INDEX ix_chunks_half_life_class
            ON indexd.chunks (namespace, half_life_class, ingested_at DESC)
    """)
    op.execute("""
        COMMENT ON INDEX indexd.ix_chunks_half_life_class IS
        'the sweep of a search: the chunks of one class from a cutoff on; the classes present'
    """)
    # Without it the planner takes `vector_dims(embedding) = D` to keep one row in 200, and then
    # prefers reading and sorting them to the HNSW index.
    op.execute("""
        CREATE STATISTICS indexd.st_chunks_dimension
            ON (vector_dims(embedding)) FROM indexd.chunks
    """)
    op.execute("""
        CREATE TABLE indexd.chunk_ages (
            namespace       text        COLLATE "C" NOT NULL,
            half_life_class smallint    NOT NULL,
            chunks          bigint      NOT NULL,
            quantiles       double precision[] NOT NULL,
            counted_at      timestamptz NOT NULL,
            CONSTRAINT pk_chunk_ages PRIMARY KEY (namespace, half_life_class)
        )
    """)
    op.execute("""
        COMMENT ON TABLE indexd.chunk_ages IS
        'How the chunks of indexed namespaces are spread over time: quantiles of ingested_at in '
        'seconds since 1970. Kept by the index keeper; only steers searches.'
    """)


def downgrade() -> None:
    op.execute("DROP TABLE indexd.chunk_ages")
    op.execute("DROP STATISTICS indexd.st_chunks_dimension")
    op.execute("ALTER TABLE indexd.chunks DROP COLUMN half_life_class")
