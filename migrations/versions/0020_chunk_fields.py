"""What filters and words read of a chunk goes beside it, and documents can expire."""

import time

from alembic import op
from sqlalchemy.exc import DBAPIError

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

LOCK_WAIT = "500ms"
"""How long a change waits for its table: all who come after it wait as long."""

ATTEMPTS = 20
"""Number of times that a change asks for the lock of its table."""

PAUSE = 0.5
"""Seconds between two of them, in which those who waited go on."""

LOCK_NOT_AVAILABLE = "55P03"

COLUMNS = (
    # Constant defaults or none: no table is rewritten.
    """
    ALTER TABLE indexd.documents
        ADD COLUMN IF NOT EXISTS expires_at timestamptz
    """,
    """
    ALTER TABLE indexd.chunks
        ADD COLUMN IF NOT EXISTS generation integer,
        ALTER COLUMN embedding DROP NOT NULL
    """,
    """
    ALTER TABLE indexd.namespaces
        ADD COLUMN IF NOT EXISTS generation   integer NOT NULL DEFAULT 0,
        ADD COLUMN IF NOT EXISTS index_serves boolean NOT NULL DEFAULT false,
        ALTER COLUMN dimension DROP NOT NULL
    """,
)

COMMENTS = {
    "COLUMN indexd.documents.expires_at": "Time from which the document is answered nowhere; NULL: "
    "it does not expire",
    "COLUMN indexd.chunks.generation": "Number of the batch that the chunk was written in, by "
    "which an HNSW index may cover what was there when it was built; NULL: written by a program "
    "of the release before",
    "COLUMN indexd.namespaces.generation": "Number that chunks which are written now get as theirs",
    "COLUMN indexd.namespaces.index_serves": "Whether a valid HNSW index for the dimension was "
    "there when the index keeper looked last",
}

TAGS_OF = """
    CREATE OR REPLACE FUNCTION indexd.tags_of(meta jsonb) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
    BEGIN
        IF jsonb_typeof(meta -> 'tags') IS DISTINCT FROM 'array' THEN
            RETURN '{}';
        END IF;
        RETURN ARRAY(
            SELECT element #>> '{}'
              FROM jsonb_array_elements(meta -> 'tags') WITH ORDINALITY AS one (element, place)
             WHERE jsonb_typeof(element) = 'string'
             ORDER BY place
        );
    END
    $$
"""

# In plpgsql, for it runs on every chunk written; nearly always one of the two is empty.
MERGED_TAGS = """
    CREATE OR REPLACE FUNCTION indexd.merged_tags(own text[], others text[]) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
    BEGIN
        IF cardinality(own) + cardinality(others) < 2 THEN
            RETURN own || others;
        END IF;
        RETURN ARRAY(
            SELECT tag
              FROM unnest(own || others) WITH ORDINALITY AS one (tag, place)
             GROUP BY tag
             ORDER BY min(place)
        );
    END
    $$
"""

CHUNK_FIELDS = """
    CREATE TABLE IF NOT EXISTS indexd.chunk_fields (
        namespace         text        COLLATE "C" NOT NULL,
        doc_id            text        COLLATE "C" NOT NULL,
        ordinal           integer     NOT NULL,
        ingested_at       timestamptz NOT NULL,
        half_life_seconds double precision,
        half_life_class   smallint    NOT NULL GENERATED ALWAYS AS (
            CASE
                WHEN half_life_seconds IS NULL THEN 32767
                ELSE ceil(ln(half_life_seconds) / ln(2::double precision))
            END::smallint
        ) STORED,
        source_ref_origin text,
        source_path       text,
        tags              text[]      NOT NULL,
        meta              jsonb       NOT NULL,
        filter_keys       bigint[]    NOT NULL GENERATED ALWAYS AS (
            indexd.filter_keys(namespace, tags, source_path, source_ref_origin)
        ) STORED,
        lex               sparsevec,
        CONSTRAINT pk_chunk_fields PRIMARY KEY (namespace, doc_id, ordinal)
    )
"""

COMMENTS |= {
    "FUNCTION indexd.tags_of": "The texts of meta.tags; none where that is no array.",
    "FUNCTION indexd.merged_tags": "The tags of a chunk and of its document, each once.",
    "TABLE indexd.chunk_fields": "What filters and words read of a chunk, its own and its "
    "document's. Beside the chunk, because updating a row that an HNSW index covers costs about "
    "100 times an ordinary update. Rows without a chunk mean nothing: every statement comes from "
    "the chunk or the document.",
    "COLUMN indexd.chunk_fields.half_life_class": "The own half-life is at most 2 ^ "
    "half_life_class seconds; 32767 without one",
    "COLUMN indexd.chunk_fields.tags": "The chunk's tags and its document's, each once",
    "COLUMN indexd.chunk_fields.meta": "The document's meta with the chunk's over it, at the "
    "first level",
    "COLUMN indexd.chunk_fields.lex": "Place for the impacts of the words; not filled yet",
    "FUNCTION indexd.write_chunk_fields": "Writes chunk_fields of a chunk that a program of the "
    "release before inserts",
}

# A program of the release before knows no chunk_fields and writes on while this is filled and until
# it is replaced. This program gives every chunk a generation, so the trigger costs it nothing. The
# next release drops it. What the old program's deletions leave is cleared when the document comes
# back: its ordinals are those below chunk_count, the others are of an earlier version and would be
# taken for the document's.
TRIGGER_FUNCTION = """
    CREATE OR REPLACE FUNCTION indexd.write_chunk_fields() RETURNS trigger
    LANGUAGE plpgsql
    -- A session keeps the plans that it made while the table was empty: they would read all of it
    -- for each chunk.
    SET enable_seqscan = off
    AS $$
    BEGIN
        IF NEW.ordinal = 0 THEN
            DELETE FROM indexd.chunk_fields AS fields
             USING indexd.documents AS document
             WHERE fields.namespace = NEW.namespace
               AND fields.doc_id = NEW.doc_id
               AND document.namespace = NEW.namespace
               AND document.doc_id = NEW.doc_id
               AND fields.ordinal >= document.chunk_count;
        END IF;
        INSERT INTO indexd.chunk_fields (
            namespace, doc_id, ordinal, ingested_at, half_life_seconds, source_ref_origin,
            source_path, tags, meta
        )
        SELECT NEW.namespace, NEW.doc_id, NEW.ordinal, NEW.ingested_at, NEW.half_life_seconds,
               NEW.source_ref_origin, NEW.source_path,
               indexd.merged_tags(NEW.tags, indexd.tags_of(document.meta)),
               document.meta || NEW.meta
          FROM indexd.documents AS document
         WHERE document.namespace = NEW.namespace
           AND document.doc_id = NEW.doc_id
        ON CONFLICT (namespace, doc_id, ordinal) DO UPDATE
           SET ingested_at       = excluded.ingested_at,
               half_life_seconds = excluded.half_life_seconds,
               source_ref_origin = excluded.source_ref_origin,
               source_path       = excluded.source_path,
               tags              = excluded.tags,
               meta              = excluded.meta,
               lex               = NULL;
        RETURN NULL;
    END
    $$
"""

TRIGGER = """
    CREATE OR REPLACE TRIGGER write_chunk_fields
    AFTER INSERT ON indexd.chunks
    FOR EACH ROW
    WHEN (NEW.generation IS NULL)
    EXECUTE FUNCTION indexd.write_chunk_fields()
"""


def comment(what: str, says: str) -> str:
    """SQL: say what an object is for."""
    escaped = says.replace("'", "''")
    return f"COMMENT ON {what} IS '{escaped}'"


def patiently(statement: str) -> None:
    """Change a table in a transaction of its own, and ask again where its lock is not to be had.

    One lock at a time cannot make a deadlock with those who read and write, and who waits long for
    an exclusive lock holds up all who come after it.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            op.execute(statement)
            return
        except DBAPIError as error:
            last = attempt == ATTEMPTS
            if last or getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
        time.sleep(PAUSE)


def upgrade() -> None:
    # Each statement is a transaction, and can be run again where the migration was cut off.
    with op.get_context().autocommit_block():
        op.execute(f"SET lock_timeout = '{LOCK_WAIT}'")
        for statement in (
            *COLUMNS,
            TAGS_OF,
            MERGED_TAGS,
            CHUNK_FIELDS,
            TRIGGER_FUNCTION,
            *(comment(what, says) for what, says in COMMENTS.items()),
            TRIGGER,
        ):
            patiently(statement)
        op.execute("SET lock_timeout = '4s'")


REFUSE = """
    DO $$
    BEGIN
        IF EXISTS (SELECT 1 FROM indexd.chunks WHERE embedding IS NULL) THEN
            RAISE EXCEPTION 'chunks without a vector are stored, which the schema before cannot '
                'hold: embed or delete them first';
        END IF;
    END
    $$
"""


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"SET lock_timeout = '{LOCK_WAIT}'")
        for statement in (
            REFUSE,
            "ALTER TABLE indexd.chunks ALTER COLUMN embedding SET NOT NULL",
            # An empty namespace takes the dimension of the first vector that is sent.
            "UPDATE indexd.namespaces SET dimension = 1 WHERE dimension IS NULL",
            """
            ALTER TABLE indexd.namespaces
                ALTER COLUMN dimension SET NOT NULL,
                DROP COLUMN IF EXISTS index_serves,
                DROP COLUMN IF EXISTS generation
            """,
            "DROP TRIGGER IF EXISTS write_chunk_fields ON indexd.chunks",
            "ALTER TABLE indexd.chunks DROP COLUMN IF EXISTS generation",
            "ALTER TABLE indexd.documents DROP COLUMN IF EXISTS expires_at",
            "DROP FUNCTION IF EXISTS indexd.write_chunk_fields",
            "DROP TABLE IF EXISTS indexd.chunk_fields",
            "DROP FUNCTION IF EXISTS indexd.merged_tags",
            "DROP FUNCTION IF EXISTS indexd.tags_of",
        ):
            patiently(statement)
        op.execute("SET lock_timeout = '4s'")
