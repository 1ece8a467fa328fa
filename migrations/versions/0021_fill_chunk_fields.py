"""Chunks that are there get their fields: in batches, while reads and writes go on."""

import time
from typing import NamedTuple, cast

import psycopg
from alembic import context, op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

BATCH = 2_000
"""Chunks: a batch locks their documents against writers, for less than 0.2 s."""

TOLD_EVERY = 10
"""Batches after which a line says how much is done."""

ATTEMPTS = 60
"""Number of times that a batch is tried while writers hold its documents."""

PAUSE = 0.5
"""Seconds between two of them."""

COLLIDED = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)


class Key(NamedTuple):
    """The key of a chunk."""

    namespace: str
    doc_id: str
    ordinal: int


LAST_OF_BATCH = """
    SELECT namespace, doc_id, ordinal
      FROM (
            SELECT namespace, doc_id, ordinal
              FROM indexd.chunks
             WHERE (namespace, doc_id, ordinal) > (%(namespace)s, %(doc_id)s, %(ordinal)s)
             ORDER BY namespace, doc_id, ordinal
             LIMIT %(batch)s
           ) AS batch
     ORDER BY namespace DESC, doc_id DESC, ordinal DESC
     LIMIT 1
"""

LOCK = """
    SELECT count(*)
      FROM (
            SELECT 1
              FROM indexd.documents
             WHERE (namespace, doc_id) >= (%(namespace)s, %(doc_id)s)
               AND (namespace, doc_id) <= (%(last_namespace)s, %(last_doc_id)s)
             ORDER BY namespace, doc_id
               FOR KEY SHARE
           ) AS locked
"""

INSERT = """
    INSERT INTO indexd.chunk_fields (
        namespace, doc_id, ordinal, ingested_at, half_life_seconds, source_ref_origin,
        source_path, tags, meta
    )
    SELECT chunk.namespace, chunk.doc_id, chunk.ordinal, chunk.ingested_at,
           chunk.half_life_seconds, chunk.source_ref_origin, chunk.source_path,
           indexd.merged_tags(chunk.tags, indexd.tags_of(document.meta)),
           document.meta || chunk.meta
      FROM indexd.chunks AS chunk
      JOIN indexd.documents AS document
     USING (namespace, doc_id)
     WHERE NOT EXISTS (
            SELECT 1
              FROM indexd.chunk_fields AS fields
             WHERE fields.namespace = chunk.namespace
               AND fields.doc_id = chunk.doc_id
               AND fields.ordinal = chunk.ordinal
           )
"""

OF_BATCH = """
       AND (chunk.namespace, chunk.doc_id, chunk.ordinal)
           > (%(namespace)s, %(doc_id)s, %(ordinal)s)
       AND (chunk.namespace, chunk.doc_id, chunk.ordinal)
           <= (%(last_namespace)s, %(last_doc_id)s, %(last_ordinal)s)
"""

ONCE = """
    ON CONFLICT (namespace, doc_id, ordinal) DO NOTHING
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        if context.is_offline_mode():
            op.execute(INSERT + ONCE)
        else:
            fill(cast("psycopg.Connection", op.get_bind().connection.driver_connection))
        op.execute("ANALYZE indexd.chunk_fields")


def fill(connection: psycopg.Connection) -> None:
    """Give every chunk its fields, in the order of their keys.

    Cut off anywhere and run again, it passes over what is done. What is written meanwhile gets its
    fields by the trigger of the migration before.
    """
    after, done = Key("", "", -1), 0
    while True:
        found = connection.execute(LAST_OF_BATCH, {**after._asdict(), "batch": BATCH}).fetchone()
        if found is None:
            break
        last = Key(*found)
        patiently(connection, after, last)
        after, done = last, done + 1
        if done % TOLD_EVERY == 0:
            print(f"fields of chunks: {done * BATCH:,} done", flush=True)


def patiently(connection: psycopg.Connection, after: Key, last: Key) -> None:
    """Fill one batch, and try again where writers hold its documents for long."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            fill_batch(connection, after, last)
            return
        except COLLIDED:
            if attempt == ATTEMPTS:
                raise
        time.sleep(PAUSE)


def fill_batch(connection: psycopg.Connection, after: Key, last: Key) -> None:
    """Write the fields of the chunks between two keys, in one short transaction.

    Every program locks a document FOR UPDATE before it replaces its chunks, or deletes its row,
    which takes the same lock. Here the documents are locked first, in the order in which writers
    lock them, and their chunks are read by a later statement: it sees what writers have committed
    that it waited for, and no other can begin before the fields are committed. So

        deleted before   the chunks are not there, and get no fields
        deleted after    the fields stay, and mean nothing without a document
        replaced before  the trigger has written the fields, which are left as they are
        replaced after   the trigger writes over these fields and deletes those past the last chunk
        new meanwhile    the trigger has written the fields, or does so when this cannot see them

    In one statement, the chunks would be those from before the wait: fields of chunks that are
    gone would come back beside those of the new version.
    """
    values = after._asdict() | {f"last_{name}": value for name, value in last._asdict().items()}
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        connection.execute("SET LOCAL lock_timeout = '500ms'")
        connection.execute(LOCK, values)
        connection.execute(INSERT + OF_BATCH + ONCE, values)


def downgrade() -> None:
    """The migration before drops the table."""
