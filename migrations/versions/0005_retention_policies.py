"""What the policy file says, where SQL can read it."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE indexd.retention_policies (
            namespace         text    COLLATE "C" NOT NULL,
            half_life_seconds double precision,
            max_items         bigint,
            max_age_seconds   double precision,
            purge_strategy    text,
            policy_hash       text    NOT NULL,
            source            text    NOT NULL,
            CONSTRAINT pk_retention_policies PRIMARY KEY (namespace),
            CONSTRAINT ck_retention_policies_half_life CHECK (
                half_life_seconds > 0 AND half_life_seconds < 'infinity'
            ),
            CONSTRAINT ck_retention_policies_max_items CHECK (max_items >= 1),
            CONSTRAINT ck_retention_policies_max_age CHECK (
                max_age_seconds > 0 AND max_age_seconds < 'infinity'
            ),
            CONSTRAINT ck_retention_policies_purge_strategy CHECK (
                purge_strategy IN ('oldest', 'lowest_score')
            )
        )
    """)
    op.execute("""
        COMMENT ON TABLE indexd.retention_policies IS
        'The policy file, as the last start or `indexd policy apply` loaded it. The row with the '
        'empty name holds the defaults, for every namespace that has no row of its own.'
    """)


def downgrade() -> None:
    op.execute("DROP TABLE indexd.retention_policies")
