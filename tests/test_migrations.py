"""Migrations: up, down and up again, with data; one at a time; equal to schema.py."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from indexd import migrate
from indexd.app import create_app
from indexd.errors import ConfigurationError
from indexd.settings import Settings
from tests.conftest import Client, document

ROOT = Path(__file__).parents[1]


def tables(connection: psycopg.Connection[Any]) -> set[str]:
    rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'indexd'")
    return {name for (name,) in rows.fetchall()}


def test_the_migrated_database_is_what_schema_py_says(url: str) -> None:
    migrate.check(url)


def test_a_difference_is_found(url: str, clone: psycopg.Connection[Any]) -> None:
    clone.execute("DROP INDEX indexd.ix_chunks_words")
    clone.commit()
    with pytest.raises(ConfigurationError, match="ix_chunks_words"):
        migrate.check(url)


@pytest.mark.slow
async def test_down_to_base_and_up_again_with_data(settings: Settings, url: str) -> None:
    async with Client(create_app(settings)) as client:
        await client.post("/index/upsert", json=document("a", [1, 0], texts=["t"]))
        await client.post("/index/delete", json={"doc_id": "a", "namespace": "notes"})
        await client.post("/index/upsert", json=document("b", [1, 0], texts=["t"]))
    with psycopg.connect(url, autocommit=True) as connection:
        before = tables(connection)
        migrate.downgrade(url, "base")
        assert tables(connection) == {"alembic_version"}
        migrate.upgrade(url)
        assert tables(connection) == before
    migrate.check(url)


@pytest.mark.slow
def test_every_migration_can_be_undone_alone(url: str) -> None:
    while True:
        migrate.downgrade(url, "-1")
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT version_num FROM indexd.alembic_version").fetchone()
        if found is None:
            break
        migrate.upgrade(url, "+1")
        migrate.downgrade(url, "-1")
    migrate.upgrade(url)
    migrate.check(url)


@pytest.mark.slow
def test_two_migrators_at_once_do_the_work_once(url: str) -> None:
    migrate.downgrade(url, "base")
    with ThreadPoolExecutor(4) as pool:
        for outcome in [pool.submit(_alembic, url) for _ in range(4)]:
            assert outcome.result().returncode == 0, outcome.result().stderr
    migrate.check(url)


def _alembic(url: str) -> subprocess.CompletedProcess[str]:
    """As a pipeline does it: plain alembic, with the URL in the environment."""
    return subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env={**os.environ, "INDEXD_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_sql_of_all_migrations_runs_as_printed(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    migrate.downgrade(url, "base")
    migrate.sql("head")
    script = capsys.readouterr().out
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA indexd CASCADE")
        connection.execute(script)
    migrate.check(url)


def test_there_is_one_head() -> None:
    assert migrate.head().isdecimal()


def test_every_table_function_and_index_says_what_it_is_for(
    clone: psycopg.Connection[Any],
) -> None:
    silent = clone.execute(
        """
        SELECT relname FROM pg_class
         WHERE relnamespace = 'indexd'::regnamespace
           AND (relkind IN ('r', 'v') AND relname <> 'alembic_version'
                OR relkind = 'i' AND relname LIKE 'ix\\_%')
           AND obj_description(oid, 'pg_class') IS NULL
        UNION ALL
        SELECT proname FROM pg_proc
         WHERE pronamespace = 'indexd'::regnamespace
           AND obj_description(oid, 'pg_proc') IS NULL
        """
    ).fetchall()
    assert silent == []


def test_what_was_removed_when_an_index_was_built_survives_the_new_name_and_the_way_back(
    url: str, clone: psycopg.Connection[Any]
) -> None:
    clone.autocommit = True
    migrate.downgrade(url, "0014")
    clone.execute("""
        INSERT INTO indexd.namespaces (
            namespace, dimension, created_at, chunks_removed, index_built_at
        )
        VALUES ('notes', 2, now(), 9, 7)
    """)
    migrate.upgrade(url)
    after = clone.execute("SELECT chunks_removed_at_build, index_built_at FROM indexd.namespaces")
    assert after.fetchall() == [(7, 7)]
    clone.execute("UPDATE indexd.namespaces SET chunks_removed_at_build = 8")
    migrate.downgrade(url, "0014")
    back = clone.execute("SELECT index_built_at FROM indexd.namespaces")
    assert back.fetchall() == [(8,)]
