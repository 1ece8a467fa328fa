"""The words of chunks that are there are weighed: in batches, while reads and writes go on."""

import time
from typing import NamedTuple, cast

import psycopg
from alembic import context, op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

BATCH = 1_000
"""Chunks: a batch locks their fields, for less than 0.5 s."""

TOLD_EVERY = 20
"""Batches after which a line says how much is done."""

ATTEMPTS = 60
"""Number of times that a batch is tried while writers hold its fields."""

PAUSE = 0.5
"""Seconds between two of them."""

SAMPLE = 1_000
"""Chunks of a namespace whose average length is taken for that of all; the index keeper corrects
it."""

COLLIDED = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)

# Namespaces whose average is known keep it: the migration was cut off, or a program has written.
AVERAGES = f"""
    UPDATE indexd.namespaces
       SET words_average = (
            SELECT greatest(avg(length), 1)
              FROM (
                    SELECT weighed.length
                      FROM (
                            SELECT text
                              FROM indexd.chunks
                             WHERE chunks.namespace = namespaces.namespace
                             LIMIT {SAMPLE}
                           ) AS sample
                     CROSS JOIN LATERAL indexd.weighed('', text, 1) AS weighed
                   ) AS lengths
           )
     WHERE words_average IS NULL
       AND chunks >= 100
"""

FILL = """
    UPDATE indexd.chunk_fields AS fields
       SET terms  = weighed.terms,
           lex    = weighed.lex,
           length = weighed.length
      FROM indexd.chunks AS chunk
      JOIN indexd.namespaces
     USING (namespace)
     CROSS JOIN LATERAL indexd.weighed(
            chunk.namespace, chunk.text, namespaces.words_average
           ) AS weighed
     WHERE fields.namespace = chunk.namespace
       AND fields.doc_id = chunk.doc_id
       AND fields.ordinal = chunk.ordinal
       AND fields.lex IS NULL
"""

OF_BATCH = """
       AND (chunk.namespace, chunk.doc_id, chunk.ordinal)
           > (%(namespace)s, %(doc_id)s, %(ordinal)s)
       AND (chunk.namespace, chunk.doc_id, chunk.ordinal)
           <= (%(last_namespace)s, %(last_doc_id)s, %(last_ordinal)s)
"""

LAST_OF_BATCH = """
    SELECT namespace, doc_id, ordinal
      FROM (
            SELECT namespace, doc_id, ordinal
              FROM indexd.chunk_fields
             WHERE (namespace, doc_id, ordinal) > (%(namespace)s, %(doc_id)s, %(ordinal)s)
             ORDER BY namespace, doc_id, ordinal
             LIMIT %(batch)s
           ) AS batch
     ORDER BY namespace DESC, doc_id DESC, ordinal DESC
     LIMIT 1
"""


class Key(NamedTuple):
    """The key of a chunk."""

    namespace: str
    doc_id: str
    ordinal: int


def upgrade() -> None:
    with op.get_context().autocommit_block():
        if context.is_offline_mode():
            op.execute(AVERAGES)
            op.execute(FILL)
        else:
            fill(cast("psycopg.Connection", op.get_bind().connection.driver_connection))
        op.execute("ANALYZE indexd.chunk_fields")


def fill(connection: psycopg.Connection) -> None:
    """Weigh the words of every chunk, in the order of their keys.

    Cut off anywhere and run again, it passes over what is done. What a program of the release
    before writes behind it, the index keeper weighs.
    """
    patiently(connection, AVERAGES, {})
    after, done = Key("", "", -1), 0
    while True:
        found = connection.execute(LAST_OF_BATCH, {**after._asdict(), "batch": BATCH}).fetchone()
        if found is None:
            break
        last = Key(*found)
        values = after._asdict() | {f"last_{name}": one for name, one in last._asdict().items()}
        patiently(connection, FILL + OF_BATCH, values)
        after, done = last, done + 1
        if done % TOLD_EVERY == 0:
            print(f"words of chunks: {done * BATCH:,} done", flush=True)


def patiently(connection: psycopg.Connection, statement: str, values: dict[str, object]) -> None:
    """Do one batch in one short transaction, and try again where writers hold its rows for long.

    Fields that a writer replaces meanwhile are of a text that is gone: the update does not find
    them any more, for a row that is deleted is passed over, and new ones are weighed already.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                connection.execute("SET LOCAL lock_timeout = '500ms'")
                connection.execute(statement, values)
        except COLLIDED:
            if attempt == ATTEMPTS:
                raise
        else:
            return
        time.sleep(PAUSE)


def downgrade() -> None:
    """The migration before drops the columns."""
