"""The schema says which programs may run on it."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A function and not a row: it is part of the schema, so nobody deletes it with the data, a
    # backup holds it, and a comparison with a fresh migration covers it.
    op.execute("""
        CREATE FUNCTION indexd.oldest_program() RETURNS text
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN '0014'
    """)
    op.execute("""
        COMMENT ON FUNCTION indexd.oldest_program IS
        'The newest migration that the oldest program knows which may run on this schema. '
        'A migration that older programs cannot live with replaces this function.'
    """)


def downgrade() -> None:
    op.execute("DROP FUNCTION indexd.oldest_program")
