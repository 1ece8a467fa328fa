"""Backup, restore and doctor."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest

from indexd.app import create_app
from indexd.cli.backup import known
from indexd.db import migrate
from indexd.db.embedded import BINARIES
from indexd.settings import Settings
from tests import fake_embedders
from tests.conftest import Client, document

pytestmark = pytest.mark.slow


def indexd(url: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "indexd", *arguments, "--database-url", url],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def empty(url: str, clone: psycopg.Connection[Any]) -> Iterator[str]:
    """A second database, with nothing in it."""
    clone.autocommit = True
    clone.execute("DROP DATABASE IF EXISTS restored WITH (FORCE)")
    clone.execute("CREATE DATABASE restored TEMPLATE template0")
    yield url.replace(f"/{clone.info.dbname}?", "/restored?")
    clone.execute("DROP DATABASE restored WITH (FORCE)")


def contents(url: str) -> list[list[tuple[Any, ...]]]:
    """Every row of every table, but for the mere statistics."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'indexd' "
            "AND tablename <> 'chunk_ages' ORDER BY 1"
        ).fetchall()
        return [
            connection.execute(f'SELECT t::text FROM indexd."{name}" AS t ORDER BY 1').fetchall()
            for (name,) in tables
        ]


def fill(url: str) -> None:
    """Rows enough that most of a backup is data."""
    with psycopg.connect(url) as connection:
        connection.execute("""
            INSERT INTO indexd.namespaces
            SELECT md5(row::text), 2, 0, 0, now() FROM generate_series(1, 5000) AS row
        """)


def schemas(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname LIKE '%index%' ORDER BY 1"
        )
        return [name for (name,) in found]


def hnsw(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_class JOIN pg_index ON indexrelid = oid "
            "WHERE relname LIKE 'hnsw%' AND indisvalid"
        ).fetchone()
        return row[0] if row else 0


def wait_for_a_lock(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(300):
            if connection.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None:
                return
            time.sleep(0.1)
    pytest.fail("nobody waited for a lock")


def wait_for_hnsw(url: str) -> None:
    for _ in range(300):
        if hnsw(url):
            return
        time.sleep(0.1)
    pytest.fail("no index was built")


async def test_what_was_backed_up_comes_back_and_its_index_by_itself(
    url: str, empty: str, tmp_path: Path, rng: np.random.Generator, settings: Settings
) -> None:
    indexing = msgspec.structs.replace(settings, index_threshold=50, keeper_interval_seconds=0.2)
    vectors = rng.normal(size=(100, 8))
    search = {"namespace": "notes", "embedding": vectors[3].tolist(), "k": 5}
    async with Client(create_app(indexing)) as client:
        for row, vector in enumerate(vectors):
            sent = document(f"d{row}", vector, texts=["Wörter"], metas=[{"tags": ["a/b"]}])
            await client.post("/index/upsert", json=sent)
        await client.post("/index/delete", json={"doc_id": "d99", "namespace": "notes"})
        wait_for_hnsw(url)
        before = (await client.post("/index/search", json=search)).json()["results"]
    assert indexd(url, "keys", "create", "kept").returncode == 0

    file = tmp_path / "memory.backup"
    made = indexd(url, "backup", str(file))
    assert made.returncode == 0, made.stderr
    assert file.stat().st_mode & 0o077 == 0
    assert indexd(url, "backup", str(file)).returncode == 1

    restored = indexd(empty, "restore", str(file))
    assert restored.returncode == 0, restored.stderr
    assert contents(empty) == contents(url)
    assert hnsw(empty) == 0
    migrate.check(empty)
    moved = msgspec.structs.replace(indexing, database_url=empty)
    async with Client(create_app(moved)) as client:
        wait_for_hnsw(empty)
        assert (await client.post("/index/search", json=search)).json()["results"] == before


def test_a_restore_overwrites_only_when_told_to(url: str, tmp_path: Path) -> None:
    file = tmp_path / "memory.backup"
    assert indexd(url, "backup", str(file)).returncode == 0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO indexd.namespaces VALUES ('later', 2, 0, 0, now())")
    outcome = indexd(url, "restore", str(file))
    assert outcome.returncode == 1
    assert "--replace" in outcome.stderr
    assert any(("later" in row[0]) for table in contents(url) for row in table)
    assert indexd(url, "restore", str(file), "--replace").returncode == 0
    assert not any(("later" in row[0]) for table in contents(url) for row in table)


def refused(url: str, file: Path, said: str) -> None:
    """A restore over a memory with rows fails, says why and changes nothing."""
    before = contents(url)
    outcome = indexd(url, "restore", str(file), "--replace")
    assert outcome.returncode == 1
    assert said in outcome.stderr
    assert contents(url) == before


def test_a_file_that_is_no_backup_changes_nothing(url: str, tmp_path: Path) -> None:
    file = tmp_path / "memory.backup"
    file.write_text("no backup")
    refused(url, file, "pg_restore failed")


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_backup_that_was_cut_off_changes_nothing(url: str, tmp_path: Path, share: float) -> None:
    file = tmp_path / "memory.backup"
    fill(url)
    assert indexd(url, "backup", str(file)).returncode == 0
    os.truncate(file, int(file.stat().st_size * share))
    refused(url, file, "pg_restore: error")
    assert schemas(url) == ["indexd"]


def test_an_archive_of_something_else_changes_nothing(
    url: str, clone: psycopg.Connection[Any], tmp_path: Path
) -> None:
    clone.autocommit = True
    clone.execute("CREATE TABLE other (x int)")
    file = tmp_path / "other.backup"
    for part in ("--schema=public", "--schema=indexd --schema-only"):
        subprocess.run(
            [BINARIES / "pg_dump", "--format=custom", *part.split(), f"--file={file}", url],
            check=True,
        )
        refused(url, file, "is no backup of a memory")


def test_a_restore_that_the_database_refuses_changes_nothing_and_says_why(
    url: str, clone: psycopg.Connection[Any], tmp_path: Path
) -> None:
    file = tmp_path / "memory.backup"
    fill(url)
    assert indexd(url, "backup", str(file)).returncode == 0
    clone.autocommit = True
    clone.execute("""
        CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE 'no indexes today'; END $$
    """)
    clone.execute(
        "CREATE EVENT TRIGGER t ON ddl_command_start WHEN TAG IN ('CREATE INDEX') "
        "EXECUTE FUNCTION refuse()"
    )
    refused(url, file, "no indexes today")


def test_a_restore_that_is_interrupted_changes_nothing(
    url: str, clone: psycopg.Connection[Any], tmp_path: Path
) -> None:
    file = tmp_path / "memory.backup"
    assert indexd(url, "backup", str(file)).returncode == 0
    before = contents(url)
    clone.execute("SELECT FROM indexd.documents")  # holds up the drop
    with subprocess.Popen(
        [sys.executable, "-m", "indexd", "restore", str(file), "--replace", "--database-url", url],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as restoring:
        wait_for_a_lock(url)
        os.killpg(restoring.pid, signal.SIGINT)
        assert restoring.wait(60) == 1
    clone.rollback()
    assert contents(url) == before


def test_a_backup_comes_back_in_an_older_postgresql(url: str, older: str, tmp_path: Path) -> None:
    file = tmp_path / "memory.backup"
    fill(url)
    assert indexd(url, "backup", str(file)).returncode == 0
    for arguments in ([], ["--replace"]):
        restored = indexd(older, "restore", str(file), *arguments)
        assert restored.returncode == 0, restored.stderr
        assert contents(older) == contents(url)


def test_a_document_that_reads_like_a_setting_is_no_setting() -> None:
    head = [b"--\n", b"\n", b"\\restrict x\n", b"SET statement_timeout = 0;\n"]
    new, copy = b"SET transaction_timeout = 0;\n", b"COPY indexd.chunks (text) FROM stdin;\n"
    for version, kept in ((160009, []), (170000, [new])):
        script = iter([*head, new, copy, new])
        assert [*known(script, version)] == [*head, *kept, copy]
        assert [*script] == [new]


@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "list"],
        ["keys", "create", "x"],
        ["index", "status"],
        ["policy", "show"],
        ["policy", "apply"],
    ],
)
def test_a_database_that_is_not_there_or_not_migrated_is_one_line(
    empty: str, arguments: list[str]
) -> None:
    failed = indexd("postgresql://nobody@127.0.0.1:1/none", *arguments)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert "Connection refused" in failed.stderr
    failed = indexd(empty, *arguments)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert "run `indexd db upgrade`" in failed.stderr


def test_a_backup_into_a_folder_that_is_not_there_is_one_line(url: str, tmp_path: Path) -> None:
    failed = indexd(url, "backup", str(tmp_path / "none" / "memory.backup"))
    assert failed.returncode == 1
    assert failed.stderr.endswith("/none/memory.backup.part: No such file or directory\n")
    assert len(failed.stderr.splitlines()) == 1


def test_a_migration_that_is_not_allowed_is_one_line(
    empty: str, clone: psycopg.Connection[Any]
) -> None:
    clone.execute("DROP ROLE IF EXISTS guest")
    clone.execute("CREATE ROLE guest LOGIN")
    failed = indexd(empty.replace("//postgres@", "//guest@"), "db", "upgrade")
    clone.execute("DROP ROLE guest")
    assert failed.returncode == 1
    assert "permission denied" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_doctor_finds_an_installation_well(url: str) -> None:
    found = indexd(url, "doctor")
    assert found.returncode == 0, found.stdout + found.stderr
    named = [line.partition(":")[0] for line in found.stdout.splitlines()]
    assert named == [
        *("program", "policies", "access", "embedder", "database", "extension", "schema"),
        "writes",
        *("pooler", "clock", "connections", "size", "indexes", "orphans"),
    ]
    assert "failed" not in found.stdout


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"INDEXD_POLICIES": "/no/such/file"}, "policies: failed"),
        ({"INDEXD_BIND_ADDR": "0.0.0.0:80", "INDEXD_AUTH": "off"}, "access: failed"),
        ({"INDEXD_AUTH": "keys"}, "keys: failed (none for admins"),
        ({"INDEXD_ADMIN_KEY_FILE": "/no/such/file"}, "admin key: failed (admin_key_file: "),
        ({"INDEXD_POOL_SIZE": "5000"}, "connections: failed"),
        (
            {
                "INDEXD_EMBEDDER_PROVIDER": "ollama",
                "INDEXD_EMBEDDER_BASE_URL": "http://127.0.0.1:1",
            },
            "embedder: failed (",
        ),
        ({"INDEXD_EMBEDDER_PROVIDER": "openai"}, "embedder: failed ("),
    ],
)
def test_doctor_names_what_is_not_well(url: str, environ: dict[str, str], named: str) -> None:
    found = indexd(url, "doctor", **environ)
    assert found.returncode == 1
    assert named in found.stdout


def test_doctor_looks_at_the_admin_key_file_as_a_start_does(url: str, tmp_path: Path) -> None:
    file = tmp_path / "admin"
    environ = {"INDEXD_AUTH": "keys", "INDEXD_ADMIN_KEY_FILE": str(file)}
    file.write_text("k" * 40)
    found = indexd(url, "doctor", **environ)
    assert found.returncode == 0, found.stdout
    assert "keys: ok (0 for admins; the next start adds the file's)" in found.stdout
    file.write_text(indexd(url, "keys", "create", "agent").stdout)
    found = indexd(url, "doctor", **environ)
    assert found.returncode == 1
    assert "keys: failed (admin_key_file: the key in it, 'agent', has scope read;" in found.stdout
    assert "k" * 40 not in found.stdout


def test_doctor_looks_for_opentelemetry_where_it_is_wanted(url: str, tmp_path: Path) -> None:
    assert "tracing: ok" in indexd(url, "doctor", INDEXD_TRACING="on").stdout
    (tmp_path / "opentelemetry.py").touch()
    found = indexd(url, "doctor", INDEXD_TRACING="on", PYTHONPATH=str(tmp_path))
    assert found.returncode == 1
    assert "tracing: failed (tracing: on needs OpenTelemetry" in found.stdout


def test_doctor_has_the_embedder_embed(url: str) -> None:
    with fake_embedders.running("ollama") as fake:
        environ = {
            "INDEXD_EMBEDDER_PROVIDER": "ollama",
            "INDEXD_EMBEDDER_BASE_URL": fake.url,
            "INDEXD_EMBEDDER_MODEL": "all-minilm",
        }
        found = indexd(url, "doctor", **environ)
        assert found.returncode == 0, found.stdout + found.stderr
        assert f"dimension {fake_embedders.DIMENSION}" in found.stdout
        fake.become("nan")
        found = indexd(url, "doctor", **environ)
        assert found.returncode == 1
        assert "embedder: failed" in found.stdout
        assert "is down" not in found.stdout.partition("embedder: failed")[0]


def test_doctor_finds_a_broken_index_and_an_old_schema(
    url: str, clone: psycopg.Connection[Any]
) -> None:
    clone.autocommit = True
    clone.execute("INSERT INTO indexd.namespaces VALUES ('notes', 2, 1, 1, now())")
    name = "hnsw_ab5aa97074c454a0_2"
    clone.execute(f"CREATE INDEX {name} ON indexd.chunks (doc_id)")
    clone.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [f"indexd.{name}"]
    )
    found = indexd(url, "doctor")
    assert found.returncode == 1
    assert "indexes: failed (0 serve, 0 wanted, 1 broken" in found.stdout
    migrate.downgrade(url, "-1")
    assert "run `indexd db upgrade`" in indexd(url, "doctor").stdout


@pytest.mark.parametrize("below", ["", "data"])
def test_doctor_keeps_its_other_lines_where_a_file_is_in_the_way_of_the_data(
    tmp_path: Path, below: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    found = subprocess.run(
        [sys.executable, "-m", "indexd", "doctor", "--data-dir", str(file / below)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (found.returncode, found.stderr) == (1, "")
    for line in ("program: ok", "policies: ok", "access: ok", "disk: ok"):
        assert line in found.stdout
    assert f"database: failed ({file}" in found.stdout


def test_doctor_says_that_there_is_no_database() -> None:
    found = indexd("postgresql://nobody@127.0.0.1:1/none", "doctor")
    assert found.returncode == 1
    assert "database: failed" in found.stdout
    assert "Traceback" not in found.stderr
