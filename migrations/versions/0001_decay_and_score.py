"""The decay of a document and the score it leaves of a similarity."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")

    # One expression, so that the planner inlines it. Beyond 1,000 half-lives the factor is below
    # 1e-301 and taken as 0, which also keeps the division and the power from overflowing or
    # underflowing into an error, whatever the age and the half-life.
    op.execute("""
        CREATE FUNCTION indexd.decay(
            ingested_at       timestamptz,
            half_life_seconds double precision,
            at                timestamptz
        ) RETURNS double precision
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN CASE
            WHEN half_life_seconds IS NULL OR at <= ingested_at
                THEN 1.0::double precision
            WHEN date_part('epoch', at - ingested_at)
                 > 1000.0::double precision * least(half_life_seconds, 1e300::double precision)
                THEN 0.0::double precision
            ELSE power(
                0.5::double precision,
                date_part('epoch', at - ingested_at) / half_life_seconds
            )
        END
    """)
    op.execute("""
        COMMENT ON FUNCTION indexd.decay IS
        'Relevance left of a document: 0.5 ^ (age_seconds / half_life_seconds), age clamped at 0; '
        '1 without a half-life. The only definition of decay.'
    """)

    # A cosine and a decay can both be so small that their product underflows, which PostgreSQL
    # reports as an error: what would be below 1e-280 is 0.
    op.execute("""
        CREATE FUNCTION indexd.score(
            similarity        double precision,
            ingested_at       timestamptz,
            half_life_seconds double precision,
            at                timestamptz
        ) RETURNS double precision
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN CASE
            WHEN indexd.decay(ingested_at, half_life_seconds, at) = 0.0::double precision
                THEN 0.0::double precision
            WHEN abs(similarity)
                 <= 1e-280::double precision / indexd.decay(ingested_at, half_life_seconds, at)
                THEN 0.0::double precision
            ELSE similarity * indexd.decay(ingested_at, half_life_seconds, at)
        END
    """)
    op.execute("""
        COMMENT ON FUNCTION indexd.score IS
        'similarity x decay: what search orders by. Right to 1e-280, 0 below.'
    """)


def downgrade() -> None:
    op.execute("DROP FUNCTION indexd.score")
    op.execute("DROP FUNCTION indexd.decay")
