"""A namespace remembers whether nobody but the embedder that comes along made its vectors."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE indexd.namespaces ADD COLUMN weak boolean DEFAULT false NOT NULL")
    op.execute("""
        COMMENT ON COLUMN indexd.namespaces.weak IS
            'Whether all vectors come from the embedder that comes along: then the first vector of '
            'a client that has another dimension, or names another model, takes their place'
    """)


def downgrade() -> None:
    op.execute("ALTER TABLE indexd.namespaces DROP COLUMN weak")
