"""A plan of a forget knows the version of each of its documents."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE indexd.forget_plan_documents ADD COLUMN version bigint")
    op.execute(
        "COMMENT ON COLUMN indexd.forget_plan_documents.version IS "
        "'Version of the document that was seen; NULL: planned by a program of the release before'"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE indexd.forget_plan_documents DROP COLUMN version")
