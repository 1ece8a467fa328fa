"""The words of a text, and what they weigh: for BM25 as an inner product."""

import time

from alembic import op
from sqlalchemy.exc import DBAPIError

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

LOCK_WAIT = "500ms"
"""How long a change waits for its table: all who come after it wait as long."""

ATTEMPTS = 20
"""Number of times that a change asks for the lock of its table."""

PAUSE = 0.5
"""Seconds between two of them, in which those who waited go on."""

LOCK_NOT_AVAILABLE = "55P03"

PAIRED = (
    r"\u0e00-\u0eff\u1000-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff"
    r"\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Letters of scripts without spaces between words: Thai and its neighbours, Chinese, Japanese, and
Korean, whose words carry their particles with them."""

PUNCTUATION = (
    r"\u0080-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7\u02c2-\u02df"
    r"\u2000-\u206f\u207a-\u207e\u2190-\u23ff\u2500-\u25ff\u2e00-\u2e7f\u3000-\u3004"
    r"\u3008-\u303f\ufd3e\ufd3f\ufe30-\ufe6f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40"
    r"\uff5b-\uff65"
)
"""What is neither a letter nor a digit, beyond ASCII."""

MARKS = r"\u0300-\u036f\u00ad\u200b-\u200f\u2060\ufe00-\ufe0f"
"""Accents that stand apart from their letters, and what is not seen."""

JOINTS = "-._/@:+"
"""What joins the parts of an identifier, a number, a path, an address."""

SPACES = "".join(
    f"\n            said := replace(said, {sign}, ' ');"
    for sign in (
        *("'" + sign + "'" for sign in '.,:;-_/\\"()[]{}<>=+*&$#@!?|~^`'),
        "''''",
        *(f"chr({code})" for code in (9, 10, 11, 12, 13, 37)),
    )
)
"""Statements of PL/pgSQL: each replace takes 0.3 microseconds, one regular expression 40."""

# In PL/pgSQL, for it runs on every chunk written. A text is looked through once for each kind of
# word that it might hold, and taken apart where it does.
TOKENS = rf"""
    CREATE OR REPLACE FUNCTION indexd.tokens(body text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
    DECLARE
        said  text   := left(body, 100000);
        other boolean;
        more  text[] := '{{}}';
    BEGIN
        other := octet_length(said) > length(said);
        IF other THEN
            said := normalize(said, NFKD);
            said := replace(replace(said, 'ß', 'ss'), 'ẞ', 'SS');
            said := regexp_replace(said, '[{MARKS}]+', '', 'g');
            said := normalize(left(said, 300000), NFKC);
            said := left(regexp_replace(said, '[{PUNCTUATION}]+', ' ', 'g'), 200000);
        END IF;
        -- Joined words, whole: e-mail is email, and 1.2.3 is not 123.
        IF said ~ '[[:alnum:]][{JOINTS}]+[[:alnum:]]' THEN
            more := ARRAY(
                SELECT regexp_replace(
                           regexp_replace(
                               lower(match[1]),
                               '(?<![0-9])[{JOINTS}]+|[{JOINTS}]+(?![0-9])', '', 'g'
                           ),
                           '^v(?=[0-9])', ''
                       )
                  FROM regexp_matches(
                           said, '[[:alnum:]]+(?:[{JOINTS}]+[[:alnum:]]+)+', 'g'
                       ) AS match
                 WHERE length(match[1]) <= 1000
            );
        END IF;
        -- The parts of getUserProfileById, HTTPServer and utf8; not those of a hash.
        IF said ~ '[a-z][A-Z]|[A-Z]{{2}}[a-z]{{2}}|[a-zA-Z][0-9]|[0-9][a-zA-Z]' THEN
            more := more || string_to_array(lower(array_to_string(ARRAY(
                SELECT regexp_replace(
                           regexp_replace(
                               match[1],
                               '([a-z])(?=[A-Z])|([a-zA-Z])(?=[0-9])|([0-9])(?=[a-zA-Z])',
                               '\1\2\3 ', 'g'
                           ),
                           '([A-Z])([A-Z][a-z]{{2}})', '\1 \2', 'g'
                       )
                  FROM regexp_matches(
                           said,
                           '[a-zA-Z0-9]*'
                           '(?:[a-z][A-Z]|[A-Z]{{2}}[a-z]{{2}}|[a-zA-Z][0-9]|[0-9][a-zA-Z])'
                           '[a-zA-Z0-9]*',
                           'g'
                       ) AS match
                 WHERE match[1] !~ '[0-9][a-zA-Z]+[0-9]+[a-zA-Z]+[0-9]'
            ), ' ')), ' ');
        END IF;
        said := lower(said);
        IF other AND said ~ '[{PAIRED}]' THEN
            more := more || ARRAY(
                SELECT pair
                  FROM regexp_matches(said, '[{PAIRED}]+', 'g') AS match
                 CROSS JOIN LATERAL (
                        SELECT letter || lead(letter, 1, '') OVER (ORDER BY place) AS pair,
                               place,
                               count(*) OVER () AS letters
                          FROM unnest(string_to_array(match[1], NULL))
                               WITH ORDINALITY AS spelled (letter, place)
                       ) AS pairs
                 WHERE place < letters OR letters = 1
            );
            said := regexp_replace(said, '[{PAIRED}]+', ' ', 'g');
        END IF;{SPACES}
        RETURN array_remove(string_to_array(said, ' '), '') || array_remove(more, '');
    END
    $$
"""

# German writes ae for ä. Of two stems each counts half, or texts in a language whose words have
# two would outweigh the others; so does the one stem of a word that is a stop word of the other
# language.
STEMS = r"""
    SELECT ts_lexize(
               'pg_catalog.german_stem',
               CASE
                   WHEN token ~ '[aou]e'
                   THEN regexp_replace(token, '(^|[^aeiouyq])([aou])e', '\1\2', 'g')
                   ELSE token
               END
           ) AS german,
           ts_lexize('pg_catalog.english_stem', token) AS english"""

LEXEMES = f"""
    CREATE OR REPLACE FUNCTION indexd.lexemes(body text)
    RETURNS TABLE (lexeme text, occurrences integer, share double precision)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT stem,
               count(*)::integer,
               max(CASE WHEN german = english THEN 1 ELSE 0.5 END)::double precision
          FROM ({STEMS}
                  FROM unnest(indexd.tokens(body)) AS token
                OFFSET 0
               ) AS stemmed
         CROSS JOIN LATERAL unnest(
                CASE WHEN german = english THEN german ELSE german || english END
               ) AS stem
         GROUP BY stem;
    END
"""

TERM = """
    CREATE OR REPLACE FUNCTION indexd.term(namespace text, lexeme text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN 1 + (
        hashtextextended(lexeme, hashtextextended(namespace, 0)) & 536870911
    )::integer
"""

# k1 is 1.2 and b 0.75. A sparsevec holds up to 16,000 values.
WEIGHED = f"""
    CREATE OR REPLACE FUNCTION indexd.weighed(
        namespace text, body text, average double precision
    )
    RETURNS TABLE (terms integer[], lex sparsevec, length integer)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT coalesce(array_agg(term), '{{}}'),
               (
                   '{{'
                || coalesce(
                       string_agg(
                           term || ':' || (
                               tf * 2.2
                             / (tf + 1.2 * (0.25 + 0.75 * words / coalesce(average, 60)))
                           )::real,
                           ','
                       ),
                       ''
                   )
                || '}}/536870912'
               )::sparsevec,
               coalesce(max(words), 0)::integer
          FROM (
                SELECT indexd.term(namespace, stem) AS term,
                       count(*)::double precision   AS tf,
                       max(words)                   AS words
                  FROM ({STEMS},
                               count(*) FILTER (WHERE token ~ '[^0-9./:@+_-]')
                                   OVER ()::double precision AS words
                          FROM unnest(indexd.tokens(body)) AS token
                        OFFSET 0
                       ) AS stemmed
                 CROSS JOIN LATERAL unnest(
                        CASE WHEN german = english THEN german ELSE german || english END
                       ) AS stem
                 GROUP BY 1
                 ORDER BY tf DESC, term
                 LIMIT 16000
               ) AS weights;
    END
"""

# The trigger of programs of the release before leaves what it does not know empty; the index keeper
# fills it.
TRIGGER_FUNCTION = """
    CREATE OR REPLACE FUNCTION indexd.write_chunk_fields() RETURNS trigger
    LANGUAGE plpgsql
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
               {empty};
        RETURN NULL;
    END
    $$
"""

STATEMENTS = (
    TOKENS,
    LEXEMES,
    TERM,
    WEIGHED,
    """
    ALTER TABLE indexd.chunk_fields
        ADD COLUMN IF NOT EXISTS terms  integer[],
        ADD COLUMN IF NOT EXISTS length integer
    """,
    TRIGGER_FUNCTION.format(
        empty="terms = NULL, lex = NULL, length = NULL",
    ),
    """
    ALTER TABLE indexd.namespaces
        ADD COLUMN IF NOT EXISTS words_average    double precision,
        ADD COLUMN IF NOT EXISTS words_reweighing boolean NOT NULL DEFAULT false,
        ADD COLUMN IF NOT EXISTS words_chunks     bigint,
        ADD COLUMN IF NOT EXISTS words_removed    bigint NOT NULL DEFAULT 0,
        ADD COLUMN IF NOT EXISTS words_counted_at timestamptz
    """,
    """
    CREATE TABLE IF NOT EXISTS indexd.term_counts (
        namespace text    COLLATE "C" NOT NULL,
        term      integer NOT NULL,
        chunks    bigint  NOT NULL,
        CONSTRAINT pk_term_counts PRIMARY KEY (namespace, term)
    )
    """,
)

COMMENTS = {
    "FUNCTION indexd.tokens": "The words of a text in its order, folded, those of identifiers "
    "whole and in parts. The only definition of words.",
    "FUNCTION indexd.lexemes": "The stems of a text, German and English, and how often each is "
    "there. share is the part of its word that a stem stands for.",
    "FUNCTION indexd.term": "The number of a lexeme in a namespace: a hash of 29 bits. Two lexemes "
    "that share it count as one.",
    "FUNCTION indexd.weighed": "What chunk_fields holds of a text: its terms, their impacts by "
    "BM25 against an average length, and its own length.",
    "COLUMN indexd.chunk_fields.terms": "Numbers of the lexemes of the text, by indexd.term; NULL: "
    "not filled yet",
    "COLUMN indexd.chunk_fields.lex": "Impacts of the terms by BM25; NULL: not filled yet",
    "COLUMN indexd.chunk_fields.length": "Number of the words of the text, without numbers",
    "COLUMN indexd.namespaces.words_average": "Average length, in words, that the impacts of "
    "chunk_fields.lex are taken against; NULL: 60",
    "COLUMN indexd.namespaces.words_reweighing": "Whether impacts are being rewritten for another "
    "average",
    "COLUMN indexd.namespaces.words_chunks": "Number of chunks when the terms were counted last",
    "COLUMN indexd.namespaces.words_removed": "Number of chunks that had ever been removed when "
    "the terms were counted last",
    "COLUMN indexd.namespaces.words_counted_at": "When the terms were counted last; NULL: each "
    "search counts those it asks for",
    "TABLE indexd.term_counts": "In how many chunks of a namespace each term is. Counted by the "
    "index keeper when the namespace has changed by a tenth; no write updates it.",
}


def comment(what: str, says: str) -> str:
    """SQL: say what an object is for."""
    escaped = says.replace("'", "''")
    return f"COMMENT ON {what} IS '{escaped}'"


def patiently(statement: str) -> None:
    """Change a table in a transaction of its own, and ask again where its lock is not to be had."""
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
            *STATEMENTS,
            *(comment(what, says) for what, says in COMMENTS.items()),
        ):
            patiently(statement)
        op.execute("SET lock_timeout = '4s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"SET lock_timeout = '{LOCK_WAIT}'")
        for statement in (
            TRIGGER_FUNCTION.format(empty="lex = NULL"),
            "UPDATE indexd.chunk_fields SET lex = NULL WHERE lex IS NOT NULL",
            """
            ALTER TABLE indexd.chunk_fields
                DROP COLUMN IF EXISTS terms,
                DROP COLUMN IF EXISTS length
            """,
            comment(
                "COLUMN indexd.chunk_fields.lex",
                "Place for the impacts of the words; not filled yet",
            ),
            "DROP TABLE IF EXISTS indexd.term_counts",
            """
            ALTER TABLE indexd.namespaces
                DROP COLUMN IF EXISTS words_average,
                DROP COLUMN IF EXISTS words_reweighing,
                DROP COLUMN IF EXISTS words_chunks,
                DROP COLUMN IF EXISTS words_removed,
                DROP COLUMN IF EXISTS words_counted_at
            """,
            "DROP FUNCTION IF EXISTS indexd.weighed",
            "DROP FUNCTION IF EXISTS indexd.term",
            "DROP FUNCTION IF EXISTS indexd.lexemes",
            "DROP FUNCTION IF EXISTS indexd.tokens",
        ):
            patiently(statement)
        op.execute("SET lock_timeout = '4s'")
