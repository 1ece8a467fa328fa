"""What text search and filters look chunks up by."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # PostgreSQL refuses a tsvector over 1 MiB; 100,000 characters stay below it in any script.
    op.execute("""
        CREATE FUNCTION indexd.words(body text) RETURNS tsvector
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN to_tsvector('pg_catalog.german',  left(body, 100000))
            || to_tsvector('pg_catalog.english', left(body, 100000))
    """)
    op.execute("""
        COMMENT ON FUNCTION indexd.words IS
        'The words of a text for full text search, stemmed as German and as English.'
    """)

    # plainto_tsquery would do, but on a query of several thousand words PostgreSQL runs out of
    # stack; the first 1,000 different ones are enough to tell texts apart.
    op.execute("""
        CREATE FUNCTION indexd.all_words(query text) RETURNS tsquery
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        BEGIN ATOMIC
            WITH languages AS (
                SELECT to_tsvector('pg_catalog.german',  left(query, 100000)) AS words
                UNION ALL
                SELECT to_tsvector('pg_catalog.english', left(query, 100000))
            )
            SELECT coalesce(string_agg('(' || every_word || ')', ' | '), '')::tsquery
              FROM languages
             CROSS JOIN LATERAL (
                    SELECT string_agg(
                               array_to_tsvector(ARRAY[lexeme])::text, ' & '
                           ) AS every_word
                      FROM (
                            SELECT lexeme
                              FROM unnest(words)
                             ORDER BY positions[1], lexeme
                             LIMIT 1000
                           ) AS first_words
                   ) AS conjunction
             WHERE every_word IS NOT NULL;
        END
    """)
    op.execute("""
        COMMENT ON FUNCTION indexd.all_words IS
        'Matches texts with all words of a query, read as German or as English.'
    """)

    # Looked for is any word that is a stop word in neither language ("the" is none in German and
    # would match every English text). Each costs time on every text that has one of them, and
    # with a page of them a search would take minutes: the first 64 must do.
    op.execute("""
        CREATE FUNCTION indexd.any_word(query text) RETURNS tsquery
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        BEGIN ATOMIC
            WITH tokens AS (
                SELECT lexeme AS token, positions[1] AS position
                  FROM unnest(to_tsvector('pg_catalog.simple', left(query, 100000)))
            ),
            stemmed AS (
                SELECT indexd.words(token) AS words
                  FROM tokens
                 WHERE to_tsvector('pg_catalog.german',  token) <> ''
                   AND to_tsvector('pg_catalog.english', token) <> ''
                 ORDER BY position, token
                 LIMIT 64
            )
            SELECT coalesce(
                       string_agg(DISTINCT array_to_tsvector(ARRAY[lexeme])::text, ' | '), ''
                   )::tsquery
              FROM stemmed
             CROSS JOIN LATERAL unnest(words);
        END
    """)
    op.execute("""
        COMMENT ON FUNCTION indexd.any_word IS
        'Matches texts with any word of a query; what a search falls back to.'
    """)

    # An index entry has a bound of 2,704 bytes, a tag or a path has none: the index holds hashes
    # and the search checks the value again. The namespace is hashed along, so a key leads to one
    # namespace only.
    op.execute("""
        CREATE FUNCTION indexd.filter_key(namespace text, kind text, value text) RETURNS bigint
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN hashtextextended(kind || chr(31) || namespace || chr(31) || value, 0)
    """)
    op.execute("""
        COMMENT ON FUNCTION indexd.filter_key IS
        'The hash under which chunks.filter_keys finds a tag, source_path or source_ref_origin.'
    """)
    op.execute("""
        CREATE FUNCTION indexd.filter_keys_of(namespace text, kind text, wanted text[])
        RETURNS bigint[]
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN (
            SELECT array_agg(indexd.filter_key(namespace, kind, value))
              FROM unnest(wanted) AS value
        )
    """)
    op.execute("""
        COMMENT ON FUNCTION indexd.filter_keys_of IS
        'The keys a filter looks for; immutable, so that the planner sees constants.'
    """)
    # In plpgsql, for it runs on every chunk written: 2 microseconds, 50 as one query.
    op.execute("""
        CREATE FUNCTION indexd.filter_keys(
            namespace text, tags text[], source_path text, source_ref_origin text
        ) RETURNS bigint[]
        LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
        AS $$
        DECLARE
            keys  bigint[] := '{}';
            parts text[];
            tag   text;
        BEGIN
            FOREACH tag IN ARRAY tags LOOP
                parts := string_to_array(tag, '/');
                FOR depth IN 1 .. cardinality(parts) LOOP
                    keys := keys || indexd.filter_key(
                        namespace, 'tag', array_to_string(parts[1 : depth], '/')
                    );
                END LOOP;
            END LOOP;
            IF source_path IS NOT NULL THEN
                keys := keys || indexd.filter_key(namespace, 'source_path', source_path);
            END IF;
            IF source_ref_origin IS NOT NULL THEN
                keys := keys
                     || indexd.filter_key(namespace, 'source_ref_origin', source_ref_origin);
            END IF;
            RETURN keys;
        END
        $$
    """)
    op.execute("""
        COMMENT ON FUNCTION indexd.filter_keys IS
        'All filter keys of a chunk; a tag counts with its parents (project/infra, project).'
    """)

    op.execute("""
        ALTER TABLE indexd.chunks
            ADD COLUMN words tsvector NOT NULL
                GENERATED ALWAYS AS (indexd.words(text)) STORED,
            ADD COLUMN filter_keys bigint[] NOT NULL
                GENERATED ALWAYS AS (
                    indexd.filter_keys(namespace, tags, source_path, source_ref_origin)
                ) STORED
    """)
    for name, definition, query in (
        (
            "ix_chunks_ingested_at",
            "(namespace, ingested_at DESC)",
            "ingested_after, ingested_before; the newest chunks of a namespace",
        ),
        ("ix_chunks_words", "USING gin (words)", "text search"),
        (
            "ix_chunks_filter_keys",
            "USING gin (filter_keys)",
            "the filters tags, source_path and source_ref_origin",
        ),
        ("ix_chunks_meta", "USING gin (meta jsonb_path_ops)", "the filter meta"),
    ):
        op.execute(f"CREATE INDEX {name} ON indexd.chunks {definition}")
        op.execute(f"COMMENT ON INDEX indexd.{name} IS '{query}'")


def downgrade() -> None:
    op.execute("ALTER TABLE indexd.chunks DROP COLUMN filter_keys, DROP COLUMN words")
    op.execute("DROP INDEX indexd.ix_chunks_meta")
    op.execute("DROP INDEX indexd.ix_chunks_ingested_at")
    op.execute("DROP FUNCTION indexd.filter_keys")
    op.execute("DROP FUNCTION indexd.filter_keys_of")
    op.execute("DROP FUNCTION indexd.filter_key")
    op.execute("DROP FUNCTION indexd.any_word")
    op.execute("DROP FUNCTION indexd.all_words")
    op.execute("DROP FUNCTION indexd.words")
