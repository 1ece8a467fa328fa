"""Migrations: up, down and up again, with data; one at a time; equal to schema.py."""

import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from indexd.app import create_app
from indexd.db import embedded, migrate, revisions
from indexd.settings import Settings
from tests.conftest import Client, command, document, refusal

ROOT = Path(__file__).parents[1]


def tables(connection: psycopg.Connection[Any]) -> set[str]:
    rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'indexd'")
    return {name for (name,) in rows.fetchall()}


def test_the_migrated_database_is_what_schema_py_says(
    url: str, clone: psycopg.Connection[Any]
) -> None:
    same = alembic(url, "check")
    assert same.returncode == 0, same.stdout + same.stderr
    clone.execute("DROP INDEX indexd.ix_chunk_fields_terms")
    clone.commit()
    other = alembic(url, "check")
    assert other.returncode != 0
    assert "ix_chunk_fields_terms" in other.stdout + other.stderr


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
        for outcome in [pool.submit(alembic, url, "upgrade", "head") for _ in range(4)]:
            assert outcome.result().returncode == 0, outcome.result().stderr
    migrate.check(url)


def alembic(url: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """As a pipeline does it: plain alembic, with the URL in the environment."""
    return subprocess.run(
        [sys.executable, "-m", "alembic", *words],
        cwd=ROOT,
        env={**os.environ, "INDEXD_DATABASE_URL": url, **environ},
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
    # As a DBA runs it: statement by statement, for some cannot be part of a transaction.
    psql = [str(embedded.BINARIES / "psql"), url, "-Xqv", "ON_ERROR_STOP=1"]
    ran = subprocess.run(psql, input=script, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    migrate.check(url)


def one_line(failed: subprocess.CompletedProcess[str]) -> str:
    """What a command that fails says: one line, and no traceback."""
    assert failed.returncode != 0, failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
    [said] = (failed.stdout + failed.stderr).splitlines()
    return said


def two_hosts(url: str) -> str:
    """The same database as the second of two hosts, of which the first is away."""
    parts = conninfo_to_dict(url)
    hosts = f"host={quote(tempfile.gettempdir(), safe='')},{quote(str(parts['host']), safe='')}"
    return f"postgresql://{parts['user']}@/{parts['dbname']}?{hosts}&port=1,{parts['port']}"


def test_a_url_of_two_hosts_does_for_every_command(url: str) -> None:
    for words, printed in (
        (["downgrade", "0013"], ""),
        (["upgrade"], ""),
        (["check"], ""),
        (["current"], f"{revisions.head()} (head)\n"),
    ):
        assert command(two_hosts(url), "db", *words) == printed
    done = alembic(two_hosts(url), "upgrade", "head")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_hosts_with_ports_behind_the_colon_are_tried_in_turn() -> None:
    away = "postgresql://indexd@127.0.0.1:1,127.0.0.1:2/indexd"
    for words in (["upgrade"], ["downgrade", "0001"], ["check"], ["current"]):
        said = refusal(away, "db", *words)
        assert said.startswith("the database cannot be reached: ")
    assert "the database cannot be reached: " in one_line(alembic(away, "upgrade", "head"))


@pytest.mark.parametrize(
    "words",
    [
        ("upgrade", "nosuch"),
        ("downgrade", "9999"),
        ("downgrade", "nosuch"),
        ("upgrade", "+99"),
        ("downgrade", "-99"),
    ],
)
def test_a_revision_that_does_not_exist_is_one_line(url: str, words: tuple[str, ...]) -> None:
    said = refusal(url, "db", *words)
    assert said.endswith(f": this program knows 0001 to {revisions.head()}")
    migrate.check(url)


@pytest.mark.slow
def test_the_sql_up_to_a_revision_that_does_not_exist_is_one_line() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "indexd", "db", "sql", "9999"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert one_line(found).startswith("indexd: Can't locate revision identified by '9999': ")


def test_a_schema_that_is_old_is_not_compared_but_said_to_be_old(url: str) -> None:
    migrate.downgrade(url, "0012")
    said = refusal(url, "db", "check")
    assert "at 0012, this program needs" in said
    assert "run `indexd db upgrade`" in said
    assert command(url, "db", "current") == "0012\n"
    migrate.downgrade(url, "base")
    assert "at nothing" in refusal(url, "db", "check")
    assert command(url, "db", "current") == "nothing\n"


@pytest.mark.parametrize(
    "words",
    [
        ("upgrade",),
        ("upgrade", "0014"),
        ("upgrade", "--or-newer"),
        ("downgrade", "0001"),
        ("check",),
    ],
)
def test_a_program_that_is_too_old_for_the_schema_says_so(
    url: str, clone: psycopg.Connection[Any], words: tuple[str, ...]
) -> None:
    become(clone, "0099", oldest_program="0099")
    said = refusal(url, "db", *words)
    assert f"at 0099, newer than this program, which knows up to {revisions.head()}" in said
    assert "the program is too old" in said
    assert command(url, "db", "current").startswith("0099 (newer than this program")


def test_plain_alembic_says_as_well_that_the_program_is_too_old(
    url: str, clone: psycopg.Connection[Any]
) -> None:
    become(clone, "0099", oldest_program="0099")
    assert "the program is too old" in one_line(alembic(url, "upgrade", "head"))


def test_an_upgrade_accepts_a_newer_schema_only_where_asked_and_where_that_admits_the_program(
    url: str, clone: psycopg.Connection[Any]
) -> None:
    become(clone, "0099", oldest_program=revisions.head())
    assert "the program is too old" in refusal(url, "db", "upgrade")
    said = command(url, "db", "upgrade", "--or-newer")
    assert said.startswith("nothing to do: the schema is at 0099, newer than this program")


def become(connection: psycopg.Connection[Any], revision: str, *, oldest_program: str) -> None:
    """As if the migration of a later release had been applied."""
    connection.execute("UPDATE indexd.alembic_version SET version_num = %s", [revision])
    connection.execute(
        "CREATE OR REPLACE FUNCTION indexd.oldest_program() RETURNS text "
        f"LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN '{oldest_program}'"
    )
    connection.commit()


def test_a_migration_behind_a_long_transaction_says_what_it_waits_for(
    url: str, clone: psycopg.Connection[Any]
) -> None:
    migrate.downgrade(url, "0013")
    clone.execute("SELECT FROM indexd.namespaces")
    for said in (refusal(url, "db", "upgrade"), one_line(alembic(url, "upgrade", "head"))):
        assert "another transaction holds a table that the migration changes" in said
        assert "cannot be reached" not in said
    clone.rollback()
    assert command(url, "db", "current") == "0013\n"
    migrate.upgrade(url)
    migrate.check(url)


def test_limits_of_the_role_do_not_stop_a_migration(
    url: str, clone: psycopg.Connection[Any]
) -> None:
    migrate.downgrade(url, "0013")
    clone.autocommit = True
    clone.execute("INSERT INTO indexd.namespaces VALUES ('notes', 2, 0, 0, now())")
    database = clone.info.dbname
    for limit in ("statement_timeout", "idle_session_timeout"):
        clone.execute(f"ALTER DATABASE {database} SET {limit} = 1500")
    with psycopg.connect(url) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("SELECT FROM indexd.namespaces")
        upgrading = pool.submit(migrate.upgrade, url)
        time.sleep(2.5)
        holder.rollback()
        upgrading.result(30)
    migrate.check(url)


@pytest.mark.slow
def test_plain_alembic_takes_the_password_from_the_file(tmp_path: Path) -> None:
    """The database that it meets believes every password and says which one it was."""
    (tmp_path / "password").write_text("from the file\n")
    with asking_for_a_password() as (url, told):
        failed = alembic(
            url,
            "upgrade",
            "head",
            INDEXD_DATABASE_PASSWORD_FILE=str(tmp_path / "password"),
        )
        assert "the database cannot be reached" in one_line(failed)
        assert told == ["from the file"]


@contextmanager
def asking_for_a_password() -> Iterator[tuple[str, list[str]]]:
    """As much of a PostgreSQL as wants a password in clear, and then refuses it."""
    told: list[str] = []

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as sent:
                    code = SSL_REQUEST
                    while code != PROTOCOL_3:
                        length, code = struct.unpack("!II", sent.read(8))
                        sent.read(length - 8)
                        connection.sendall(AUTHENTICATE if code == PROTOCOL_3 else b"N")
                    sent.read(1)
                    [length] = struct.unpack("!I", sent.read(4))
                    told.append(sent.read(length - 4).rstrip(b"\0").decode())
                    said = b"SFATAL\0C28P01\0Mwrong password\0\0"
                    connection.sendall(b"E" + struct.pack("!I", len(said) + 4) + said)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener], daemon=True)
        thread.start()
        yield f"postgresql://indexd@127.0.0.1:{listener.getsockname()[1]}/indexd", told
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


PROTOCOL_3 = 196608
SSL_REQUEST = 80877103
AUTHENTICATE = b"R" + struct.pack("!II", 8, 3)
"""Of PostgreSQL's protocol: AuthenticationCleartextPassword."""


def test_plain_alembic_reads_the_settings_file(url: str, tmp_path: Path) -> None:
    (tmp_path / "indexd.yml").write_text(f"database_url: {url}\n")
    migrate.downgrade(url, "-1")
    done = alembic("", "upgrade", "head", INDEXD_CONFIG=str(tmp_path / "indexd.yml"))
    assert done.returncode == 0, done.stderr
    migrate.check(url)


def test_there_is_one_head() -> None:
    assert revisions.head().isdecimal()


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
