"""${message}

A migration must not hold a lock for long and must work with the previous release's code. One that
programs of before cannot live with replaces indexd.oldest_program(), and its downgrade puts the
former one back. Run `make catalogue` afterwards.
"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else 'op.execute("""...""")'}


def downgrade() -> None:
    ${downgrades if downgrades else 'op.execute("""...""")'}
