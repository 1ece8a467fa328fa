"""Writers are turned away for a moment while the last texts of a namespace are embedded anew."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The program of the release before does not look at it and goes on writing: then `indexd
    # reembed` finds texts without a vector when it cuts over, and tries again.
    op.execute("ALTER TABLE indexd.namespaces ADD COLUMN writes_paused_until timestamptz")
    op.execute("""
        COMMENT ON COLUMN indexd.namespaces.writes_paused_until IS
        'Upserts are refused (503) before this time, while `indexd reembed` embeds the texts that '
        'were written last; NULL or past: not paused'
    """)


def downgrade() -> None:
    op.execute("ALTER TABLE indexd.namespaces DROP COLUMN writes_paused_until")
