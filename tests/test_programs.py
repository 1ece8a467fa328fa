"""PostgreSQL's own programs, as the command line chooses and starts them."""

import os
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import conninfo_to_dict

from indexd.cli import commands, programs
from indexd.db import embedded
from indexd.db.server_user import ROOTS_USER
from tests.conftest import command, refusal

pytestmark = pytest.mark.slow

DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
"""PostgreSQL servers that Debian's packages install; they have TLS."""


def made(folder: Path, name: str, version: str, *, has_tls: bool) -> None:
    """A program that writes down what it is started with."""
    folder.mkdir(exist_ok=True)
    answer = "" if has_tls else "SSL support is not compiled in"
    (folder / name).write_text(
        f"""#!/bin/sh
        case "$1" in
            --version) echo "{name} (PostgreSQL) {version} (Debian)"; exit ;;
            *{programs.NO_SERVER}*) echo "{answer}" >&2; exit 1 ;;
        esac
        printf "%s\\n" "$0" "$@" > arguments
        printf %s "$PGPASSWORD" > password
        """
    )
    (folder / name).chmod(0o755)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders: one for those on the PATH, one for those that come along."""
    path, own = tmp_path / "path", tmp_path / "own"
    path.mkdir()
    own.mkdir()
    monkeypatch.setattr(embedded, "BINARIES", own)
    monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin")
    monkeypatch.setattr(programs, "_on_the_path", lambda name: iter([path / name]))
    monkeypatch.chdir(tmp_path)
    return path, own


class Pretended(programs.Server):
    """A server that nobody connects to."""

    def __init__(self, major: int, *, encrypted: bool) -> None:
        self._look = (major, encrypted)


def pretend(monkeypatch: pytest.MonkeyPatch, major: int, *, encrypted: bool) -> None:
    monkeypatch.setattr(programs, "Server", lambda _: Pretended(major, encrypted=encrypted))


@pytest.mark.parametrize(
    ("program", "words"),
    [("psql", ["psql", "-c", "SELECT 1"]), ("pg_dump", ["backup", "memory.backup"])],
)
@pytest.mark.parametrize("where", ["in the URL", "in a file"])
def test_a_password_is_in_no_arguments(
    program: str,
    words: list[str],
    where: str,
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made(folders[0], program, "18.4", has_tls=True)
    pretend(monkeypatch, 18, encrypted=True)
    url = "postgresql://indexd@db.example:5433/memory?sslmode=require"
    if where == "in the URL":
        url = url.replace("indexd@", "indexd:s%20cret@")
    else:
        Path("file").write_text("s cret\n")
        monkeypatch.setenv("INDEXD_DATABASE_PASSWORD_FILE", "file")
    found = CliRunner().invoke(commands, [*words, "--database-url", url])
    assert found.exit_code == 0, found.output
    assert Path("password").read_text() == "s cret"
    [_, target, *_] = Path("arguments").read_text().splitlines()
    for part in ("user=indexd", "dbname=memory", "host=db.example", "port=5433", "sslmode=require"):
        assert part in target
    assert "cret" not in Path("arguments").read_text()


AWAY = "postgresql://indexd@db.example/memory"

PATH, OWN = 0, 1


@pytest.mark.parametrize(
    ("on_the_path", "along", "server", "encrypted", "url", "chosen"),
    [
        # What is on the PATH comes first, where it is new enough.
        (("17.2", True), ("18.4", False), 17, True, AWAY, PATH),
        (("17.2", True), ("18.4", False), 17, False, AWAY, PATH),
        (("17.2", False), ("18.4", True), 17, False, AWAY, PATH),
        (("15.18", True), ("18.4", False), 17, False, AWAY, OWN),
        (("15.18", True), ("18.4", False), 17, True, f"{AWAY}?sslmode=disable", OWN),
        (("15.18", True), ("18.4", False), 17, False, "postgresql:///memory", OWN),
        # Nothing goes unencrypted where the service does not.
        (("15.18", True), ("18.4", False), 17, True, AWAY, None),
        (("15.18", True), ("18.4", False), 17, True, f"{AWAY}?sslmode=prefer", None),
        (("15.18", True), ("18.4", False), 17, True, f"{AWAY}?sslmode=require", None),
        (("15.18", True), ("18.4", False), 17, False, f"{AWAY}?sslmode=verify-full", None),
        (("17.2", False), ("18.4", True), 17, True, AWAY, OWN),
        # None is new enough.
        (("15.18", True), ("18.4", False), 19, False, AWAY, None),
    ],
)
def test_the_pg_dump_is_chosen_that_suits_the_server(
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    on_the_path: tuple[str, bool],
    along: tuple[str, bool],
    server: int,
    encrypted: bool,
    url: str,
    chosen: int | None,
) -> None:
    for folder, (version, has_tls) in zip(folders, (on_the_path, along), strict=True):
        made(folder, "pg_dump", version, has_tls=has_tls)
    pretend(monkeypatch, server, encrypted=encrypted)
    if chosen is None:
        said = refusal(url, "backup", "memory.backup")
        assert f"expected a pg_dump of PostgreSQL {server} or newer" in said
        assert f"{folders[0]}/pg_dump (15.18)" in said
        assert f"{folders[1]}/pg_dump (18.4, without TLS)" in said
        assert not Path("arguments").exists()
    else:
        command(url, "backup", "memory.backup")
        [path, *_] = Path("arguments").read_text().splitlines()
        assert path == f"{folders[chosen]}/pg_dump"


def test_psql_may_be_older_than_the_server_but_must_encrypt(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, 18, encrypted=True)
    made(folders[OWN], "psql", "18.4", has_tls=False)
    made(folders[PATH], "psql", "15.18", has_tls=True)
    command(AWAY, "psql")
    assert Path("arguments").read_text().startswith(f"{folders[PATH]}/psql\n")
    (folders[PATH] / "psql").unlink()
    assert "expected a psql with TLS on the PATH" in refusal(AWAY, "psql")


def test_the_server_that_comes_along_is_met_by_its_own_programs(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    made(folders[PATH], "psql", "99.0", has_tls=True)
    made(folders[OWN], "psql", "18.4", has_tls=False)
    monkeypatch.setattr(embedded, "postgres", lambda _: _given(url))
    found = CliRunner().invoke(commands, ["psql"])
    assert found.exit_code == 0, found.output
    assert Path("arguments").read_text().startswith(f"{folders[OWN]}/psql\n")


@contextmanager
def _given(url: str) -> Iterator[str]:
    yield url


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost and its key; skips where nothing makes one."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    own, key = folder / "server.crt", folder / "server.key"
    subprocess.run(
        [
            *("openssl", "req", "-new", "-x509", "-days", "2", "-nodes"),
            *("-subj", "/CN=localhost", "-out", own, "-keyout", key),
        ],
        check=True,
        capture_output=True,
    )
    return own, key


class Front:
    """Ends TLS in front of a PostgreSQL and refuses every connection in clear."""

    def __init__(self, behind: str, folder: Path) -> None:
        parts = conninfo_to_dict(behind)
        self._socket = f"{parts['host']}/.s.PGSQL.{parts.get('port') or 5432}"
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(*certificate(folder))
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        self.url = f"postgresql://{parts['user']}@127.0.0.1:{port}/{parts['dbname']}"
        self.encrypted = 0
        self.refused = 0

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self.listener.accept()
                threading.Thread(target=self._pass_on, args=[accepted], daemon=True).start()

    def _pass_on(self, accepted: socket.socket) -> None:
        with suppress(OSError), accepted:
            _, code = struct.unpack("!II", accepted.recv(8, socket.MSG_WAITALL))
            if code != SSL_REQUEST:
                self.refused += 1
                said = b"SFATAL\0C28000\0Mno encryption\0\0"
                accepted.sendall(b"E" + struct.pack("!I", len(said) + 4) + said)
                return
            accepted.sendall(b"S")
            with (
                self._tls.wrap_socket(accepted, server_side=True) as client,
                socket.socket(socket.AF_UNIX) as server,
            ):
                server.connect(self._socket)
                self.encrypted += 1
                forth = threading.Thread(target=_copy, args=[client, server], daemon=True)
                forth.start()
                _copy(server, client)
                forth.join(10)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


SSL_REQUEST = 80877103
"""Of PostgreSQL's protocol."""


@pytest.fixture
def front(url: str, tmp_path: Path) -> Iterator[Front]:
    opened = Front(url, tmp_path)
    thread = threading.Thread(target=opened.serve, daemon=True)
    thread.start()
    yield opened
    opened.listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    opened.listener.close()


def skip_without(name: programs.Name, *, major: int = 0) -> None:
    """Skips where no such program with TLS is installed."""
    found = [programs.Program(path) for path in programs._on_the_path(name)]
    if not any(one.has_tls and one.major >= major for one in found):
        pytest.skip(f"there is no {name} with TLS of version {major} or newer on the PATH")


@pytest.mark.parametrize("sslmode", ["require", "prefer"])
def test_psql_and_restore_reach_a_database_that_demands_tls(
    url: str, front: Front, tmp_path: Path, sslmode: str
) -> None:
    skip_without("psql")
    file = tmp_path / "memory.backup"
    command(url, "backup", str(file))
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO indexd.namespaces VALUES ('later', 2, 0, 0, now())")
    demanding = f"{front.url}?sslmode={sslmode}"
    counted = "SELECT count(*) FROM indexd.namespaces"
    command(demanding, "psql", "-c", counted, "-At", "-o", str(tmp_path / "shown"))
    assert (tmp_path / "shown").read_text() == "1\n"
    command(demanding, "restore", str(file), "--replace")
    with psycopg.connect(url) as connection:
        assert connection.execute(counted).fetchone() == (0,)
    assert front.encrypted > 0
    assert front.refused == 0


@pytest.mark.parametrize("sslmode", ["require", "prefer"])
def test_a_backup_reaches_a_database_that_demands_tls(
    front: Front, tmp_path: Path, sslmode: str
) -> None:
    skip_without("pg_dump", major=embedded.POSTGRES_VERSION)
    command(f"{front.url}?sslmode={sslmode}", "backup", str(tmp_path / "memory.backup"))
    assert front.encrypted > 0
    assert front.refused == 0


@pytest.mark.parametrize("sslmode", ["require", "prefer"])
@pytest.mark.parametrize("words", [["psql", "-c", "SELECT 1"], ["backup", "memory.backup"]])
def test_programs_without_tls_are_refused_in_one_line_and_nothing_goes_in_clear(
    front: Front, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sslmode: str, words: list[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    said = refusal(f"{front.url}?sslmode={sslmode}", *words)
    assert "with TLS on the PATH for this database" in said
    assert front.refused == 0


@pytest.fixture
def debian() -> Iterator[str]:
    """A PostgreSQL of Debian's that takes connections over TLS alone; pgvector it may lack."""
    if not DEBIAN:
        pytest.skip("no PostgreSQL of Debian's is installed")
    with tempfile.TemporaryDirectory(prefix="indexd-test-") as folder:
        yield from _debian(DEBIAN[-1].parent, Path(folder))


def _debian(programs_there: Path, home: Path) -> Iterator[str]:
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = {"user": ROOTS_USER}
        shutil.chown(home, ROOTS_USER)

    def run(*words: str | Path) -> None:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=home, **user)

    data = home / "data"
    run(programs_there / "initdb", "-D", data, "-A", "trust", "-U", "indexd")
    for file in certificate(home):
        file.chmod(0o600)
        if user:
            shutil.chown(file, ROOTS_USER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")
    with (data / "postgresql.conf").open("a") as configuration:
        configuration.write(
            f"ssl = on\nssl_cert_file = '{home}/server.crt'\nssl_key_file = '{home}/server.key'\n"
            f"listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{home}'\n"
            "fsync = off\n"
        )
    control: Sequence[str | Path] = (programs_there / "pg_ctl", "-w", "-D", data)
    run(*control, "-l", home / "log", "start")
    try:
        yield f"postgresql://indexd@127.0.0.1:{port}/postgres"
    finally:
        run(*control, "-m", "immediate", "stop")


@pytest.mark.parametrize("sslmode", ["require", "prefer"])
def test_a_postgresql_with_tls_alone_is_backed_up(
    debian: str, tmp_path: Path, sslmode: str
) -> None:
    """Only the table that makes a backup one: that PostgreSQL may have no pgvector."""
    with psycopg.connect(debian, autocommit=True) as connection:
        skip_without("pg_dump", major=connection.info.server_version // 10_000)
        connection.execute("CREATE SCHEMA indexd")
        connection.execute("CREATE TABLE indexd.alembic_version AS SELECT '0014' AS version_num")
    url, file = f"{debian}?sslmode={sslmode}", tmp_path / "memory.backup"
    command(url, "backup", str(file))
    listed = subprocess.run(
        [programs.of_archives(), "--list", file], capture_output=True, text=True, check=True
    )
    assert "TABLE DATA indexd alembic_version" in listed.stdout
    said = refusal(f"{debian}?sslmode=disable", "backup", str(tmp_path / "second.backup"))
    assert "no encryption" in said
