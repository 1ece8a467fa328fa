"""`indexd db check`: all that a fresh migration makes is compared, and each change is found."""

import importlib.util
from pathlib import Path
from typing import Any

import psycopg
import pytest

from indexd.db import catalogue, migrate
from indexd.errors import ConfigurationError
from tests.conftest import Sql, command
from tests.test_backup import indexd


def found_by_check(url: str) -> list[str]:
    """The lines of `indexd db check`, none where all is well."""
    try:
        migrate.check(url)
    except ConfigurationError as error:
        heading, *lines = error.message.splitlines()
        assert heading == "the schema differs from a fresh migration:"
        return [line.strip() for line in lines]
    return []


def test_the_shipped_catalogue_is_what_the_migrations_make(clone: psycopg.Connection[Any]) -> None:
    """Run `make catalogue` after a change of the migrations."""
    file = Path(__file__).parents[1] / "scripts" / "catalogue.py"
    spec = importlib.util.spec_from_file_location("scripts_catalogue", file)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.printed(catalogue.read(clone)) == catalogue.SHIPPED.read_text()


BROKEN = {
    "a primary key is dropped": (
        "ALTER TABLE indexd.chunks DROP CONSTRAINT pk_chunks",
        ["missing: constraint pk_chunks of indexd.chunks", "missing: index pk_chunks"],
    ),
    "a check is dropped": (
        "ALTER TABLE indexd.namespaces DROP CONSTRAINT ck_namespaces_dimension",
        ["missing: constraint ck_namespaces_dimension of indexd.namespaces"],
    ),
    "a check is another one of the same name": (
        """
        ALTER TABLE indexd.namespaces DROP CONSTRAINT ck_namespaces_dimension,
              ADD CONSTRAINT ck_namespaces_dimension CHECK (dimension > 0)
        """,
        ["changed: constraint ck_namespaces_dimension of indexd.namespaces: definition is"],
    ),
    "a check holds for new rows only": (
        """
        ALTER TABLE indexd.relevance DROP CONSTRAINT ck_relevance_smoothed_score,
              ADD CONSTRAINT ck_relevance_smoothed_score
                  CHECK (smoothed_score BETWEEN 0 AND 1) NOT VALID
        """,
        ["changed: constraint ck_relevance_smoothed_score of indexd.relevance: definition is"],
    ),
    "a view is dropped": (
        "DROP VIEW indexd.forget_log",
        ["missing: view forget_log"],
    ),
    "a view shows something else": (
        """
        CREATE OR REPLACE VIEW indexd.retention_status AS
        SELECT namespace, documents, chunks, NULL::double precision AS half_life_seconds,
               NULL::double precision AS max_age_seconds, 0::bigint AS expired,
               NULL::bigint AS max_items, 0::bigint AS surplus, NULL AS purge_strategy,
               now() AS oldest, now() AS newest
          FROM indexd.namespaces
        """,
        ["changed: view retention_status: definition is"],
    ),
    "a function is dropped": (
        "DROP FUNCTION indexd.any_word(text)",
        ["missing: function any_word(query text)"],
    ),
    "a function is a constant": (
        """
        CREATE OR REPLACE FUNCTION indexd.decay(
            ingested_at timestamptz, half_life_seconds double precision, at timestamptz
        ) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 1.0
        """,
        ["changed: function decay("],
    ),
    "a function is no longer immutable": (
        "ALTER FUNCTION indexd.words(text) STABLE",
        ["changed: function words(body text): volatility is s, expected i"],
    ),
    "a function has settings of its own": (
        "ALTER FUNCTION indexd.filter_key(text, text, text) SET search_path = public",
        ["changed: function filter_key(namespace text, kind text, value text): settings is"],
    ),
    "words are no longer generated": (
        "ALTER TABLE indexd.chunks ALTER COLUMN words DROP EXPRESSION",
        [
            "changed: column chunks.words: generated as is none, expected indexd.words(text)",
            "changed: column chunks.words: generated when is none, expected s",
        ],
    ),
    "a trigger swallows every insert": (
        """
        CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER swallow BEFORE INSERT ON indexd.documents
            FOR EACH ROW EXECUTE FUNCTION public.swallow()
        """,
        ["unknown to this program: trigger swallow of documents: CREATE TRIGGER swallow"],
    ),
    "a rule swallows every delete": (
        "CREATE RULE swallow AS ON DELETE TO indexd.documents DO INSTEAD NOTHING",
        ["unknown to this program: rule swallow of documents: CREATE RULE swallow"],
    ),
    "the collation of a key is another": (
        'ALTER TABLE indexd.api_keys ALTER COLUMN name TYPE text COLLATE "POSIX"',
        [
            'changed: column api_keys.name: collation is "POSIX", expected "C"',
        ],
    ),
    "the collation of chunk_id is the database's": (
        'ALTER TABLE indexd.chunks ALTER COLUMN chunk_id TYPE text COLLATE "default"',
        ['changed: column chunks.chunk_id: collation is none, expected "C"'],
    ),
    "a column is added": (
        "ALTER TABLE indexd.documents ADD COLUMN mine text",
        ["unknown to this program: column documents.mine"],
    ),
    "a column is dropped": (
        "ALTER TABLE indexd.forget_events DROP COLUMN strategy CASCADE",
        ["missing: column forget_events.strategy", "missing: view forget_log"],
    ),
    "a table is added": (
        "CREATE TABLE indexd.mine (x int)",
        ["unknown to this program: table mine"],
    ),
    "a type is another": (
        "ALTER TABLE indexd.relevance ALTER COLUMN days TYPE bigint",
        ["changed: column relevance.days: type is bigint, expected integer"],
    ),
    "a column may be null": (
        "ALTER TABLE indexd.documents ALTER COLUMN digest DROP NOT NULL",
        ["changed: column documents.digest: not null is no, expected yes"],
    ),
    "a default is another": (
        "ALTER TABLE indexd.namespaces ALTER COLUMN index_mode SET DEFAULT 'never'",
        ["changed: column namespaces.index_mode: default is 'never'::text, expected 'auto'::text"],
    ),
    "an index is dropped": (
        "DROP INDEX indexd.ix_chunk_fields_terms",
        ["missing: index ix_chunk_fields_terms"],
    ),
    "an index is another of the same name": (
        """
        DROP INDEX indexd.ix_chunks_ingested_at;
        CREATE INDEX ix_chunks_ingested_at ON indexd.chunks (ingested_at, namespace)
        """,
        ["changed: index ix_chunks_ingested_at: definition is"],
    ),
    "an index is invalid": (
        """
        UPDATE pg_index SET indisvalid = false
         WHERE indexrelid = 'indexd.ix_documents_half_life'::regclass
        """,
        ["changed: index ix_documents_half_life: valid is no, expected yes"],
    ),
    "an index only looks like the keeper's": (
        "CREATE UNIQUE INDEX hnsw_mine ON indexd.chunks (chunk_id)",
        ["unknown to this program: index hnsw_mine: CREATE UNIQUE INDEX hnsw_mine"],
    ),
    "a table is lost at a crash": (
        "ALTER TABLE indexd.relevance SET UNLOGGED",
        ["changed: table relevance: persistence is u, expected p"],
    ),
    "rows are hidden": (
        "ALTER TABLE indexd.documents ENABLE ROW LEVEL SECURITY",
        ["changed: table documents: row security is yes, expected no"],
    ),
    "a table of others keeps documents from leaving": (
        """
        CREATE TABLE public.theirs (
            namespace text COLLATE "C", doc_id text COLLATE "C",
            CONSTRAINT theirs_fk FOREIGN KEY (namespace, doc_id) REFERENCES indexd.documents
        )
        """,
        ["unknown to this program: constraint theirs_fk of public.theirs: FOREIGN KEY"],
    ),
    "a table of others adds rows to ours": (
        "CREATE TABLE public.heir () INHERITS (indexd.forget_events)",
        ["unknown to this program: heir public.heir of forget_events"],
    ),
    "the statistics are dropped": (
        "DROP STATISTICS indexd.st_chunks_dimension",
        ["missing: statistics st_chunks_dimension"],
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_each_change_is_found_alone(
    common_connection: psycopg.Connection[Any], broken: str
) -> None:
    statement, expected = BROKEN[broken]
    with common_connection.transaction(force_rollback=True):
        assert catalogue.differences(common_connection) == []
        common_connection.execute(statement)
        found = catalogue.differences(common_connection)
    for line in expected:
        assert any(one.startswith(line) for one in found), found
    assert {about(line) for line in found} == {about(line) for line in expected}


def about(line: str) -> str:
    """The object that a line names."""
    return line.split(": ")[1].partition("(")[0]


def test_the_command_says_each_difference_on_a_line_and_fails(url: str, own_sql: Sql) -> None:
    assert command(url, "db", "check") == ""
    own_sql("DROP VIEW indexd.forget_log")
    own_sql("ALTER TABLE indexd.documents ADD COLUMN mine text")
    failed = indexd(url, "db", "check")
    assert failed.returncode == 1
    assert failed.stderr.splitlines() == [
        "indexd: the schema differs from a fresh migration:",
        "  missing: view forget_log",
        "  unknown to this program: column documents.mine",
    ]


def test_what_the_index_keeper_builds_is_no_difference(url: str, own_sql: Sql) -> None:
    own_sql("""
        CREATE INDEX hnsw_ab5aa97074c454a0_2 ON indexd.chunks
        USING hnsw ((embedding::halfvec(2)) halfvec_ip_ops) WHERE namespace = 'notes'
    """)
    assert found_by_check(url) == []


def test_where_the_extension_lies_is_no_difference(url: str, own_sql: Sql) -> None:
    own_sql("CREATE SCHEMA extensions; ALTER EXTENSION vector SET SCHEMA extensions")
    assert found_by_check(url) == []


def test_a_read_only_database_can_be_checked(url: str, own_sql: Sql, clone: Any) -> None:
    own_sql(f"ALTER DATABASE {clone.info.dbname} SET default_transaction_read_only = on")
    assert found_by_check(url) == []
    migrate.current(url)


def test_an_older_postgresql_prints_the_same_catalogue(older: str) -> None:
    migrate.upgrade(older)
    assert found_by_check(older) == []
