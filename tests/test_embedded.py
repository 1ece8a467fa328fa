"""The PostgreSQL that comes along: who may use it, and which folders it leaves as they are."""

import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import conninfo_to_dict

from indexd import settings
from indexd.cli import commands
from indexd.cli.common import running_database
from indexd.db import embedded, server_user
from indexd.errors import ConfigurationError
from indexd.settings import Settings

pytestmark = pytest.mark.slow

NOBODY = 65_534

as_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can act as other users, by setpriv",
)

SMALL = {"shared_buffers": "16MB", "fsync": "off"}

LONG = "x" * 120
"""The name of a folder that leaves no room for a socket in its path."""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def indexd(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "indexd", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def as_another(uid: int, *command: str) -> subprocess.CompletedProcess[str]:
    gid = pwd.getpwuid(uid).pw_gid
    return subprocess.run(
        ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *command],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def psql(url: str, statement: str) -> list[str]:
    return [str(embedded.BINARIES / "psql"), url, "-Xtc", statement]


def socket_folder(url: str) -> Path:
    return Path(str(conninfo_to_dict(url)["host"]))


@as_root
@pytest.mark.parametrize("name", ["short", LONG, "a folder, with 'all' of it 100%"])
def test_another_user_of_the_machine_cannot_reach_the_database(tmp_path: Path, name: str) -> None:
    pwned = tmp_path / "pwned"
    tmp_path.chmod(0o777)
    with embedded.postgres(tmp_path / name, SMALL) as url:
        found = subprocess.run(psql(url, "SELECT 42"), capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "42"
        attack = psql(url, f"COPY (SELECT 1) TO PROGRAM 'id > {pwned}'")
        assert "Permission denied" in as_another(NOBODY, *attack).stderr
        # Even where a mode went wrong, the server itself does not let them in.
        for folder in (socket_folder(url), tmp_path / name):
            folder.chmod(0o777)
        socket_folder(url).joinpath(".s.PGSQL.5432").chmod(0o777)
        assert "Peer authentication failed" in as_another(NOBODY, *attack).stderr
        assert not pwned.exists()
        socket_folder(url).chmod(0o700)
    assert socket_folder(url).exists() is (socket_folder(url) == tmp_path / name / "postgres")


@as_root
def test_the_server_has_no_group_of_roots(tmp_path: Path) -> None:
    with embedded.postgres(tmp_path, SMALL):
        pid = int((tmp_path / "postgres" / "postmaster.pid").read_text().split()[0])
        process = psutil.Process(pid)
        assert 0 not in (*process.uids(), *process.gids())
        assert "Groups:\t \n" in Path(f"/proc/{pid}/status").read_text()


@as_root
@pytest.mark.parametrize("command", ["doctor", "psql"])
def test_no_folder_is_opened_and_the_refusal_says_what_to_do(tmp_path: Path, command: str) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    folders = [home, home / ".local", home / ".local" / "share"]
    for folder in folders[1:]:
        folder.mkdir(mode=0o700)
    refused = indexd(command, "--data-dir", str(folders[-1] / "indexd"), HOME=str(home))
    assert refused.returncode == 1
    assert f"may not enter {home}: name another folder with --data-dir" in (
        refused.stdout + refused.stderr
    )
    assert [mode(folder) for folder in folders] == [0o700] * 3
    assert list(folders[-1].iterdir()) == []


@as_root
def test_folders_that_were_there_keep_their_mode_and_new_ones_are_closed(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o711)
    before = {one: mode(one) for one in (there, *there.parents, *embedded.BINARIES.parents)}
    umask = os.umask(0o077)
    try:
        with embedded.postgres(there / "new" / "data", SMALL):
            assert {one: mode(one) for one in before} == before
    finally:
        os.umask(umask)
    for made in (there / "new", there / "new" / "data"):
        assert mode(made) == 0o750
    assert mode(there / "new" / "data" / "postgres") == 0o700


@as_root
def test_programs_that_the_servers_user_may_not_enter_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    package = embedded.BINARIES.parents[1]
    for one in (package, package.with_name(package.name + ".libs")):
        (home / one.name).symlink_to(one)
    hidden = home / embedded.BINARIES.relative_to(package.parent)
    monkeypatch.setattr(embedded, "BINARIES", hidden)
    for _ in range(2):
        with embedded.postgres(tmp_path / "data", SMALL) as url, psycopg.connect(url) as database:
            database.execute("CREATE EXTENSION vector")
            database.rollback()
    assert mode(home) == 0o700
    [copy] = (tmp_path / "data" / "programs").iterdir()
    assert (copy / package.name / "pginstall18" / "bin" / "postgres").exists()


@contextmanager
def earlier_release(folder: Path) -> Iterator[str]:
    """A server as earlier releases started it for root, with a process that uses it."""
    home, sockets = folder / "postgres", Path(tempfile.gettempdir()) / os.urandom(5).hex()
    for one in (folder, home, sockets):
        one.mkdir()
    user = server_user.server_user()
    user.owns(home)

    def run(program: str, *arguments: str | Path) -> None:
        done = user.run(embedded.BINARIES / program, *arguments, "-D", home)
        assert done.returncode == 0, done.stdout + done.stderr

    run("initdb", "--auth=trust", "--auth-local=trust", "--encoding=utf8", "-U", "postgres")
    sockets.chmod(0o777)
    run("pg_ctl", "start", "--log", home / "log", "--options", f'-h "" -k {sockets}')
    with subprocess.Popen(["sleep", "600"]) as process:
        (home / embedded.USERS).write_text(json.dumps([process.pid]))
        try:
            yield f"postgresql://postgres:@/postgres?host={sockets}"
        finally:
            process.kill()
            run("pg_ctl", "stop")
            sockets.rmdir()


@as_root
@pytest.mark.parametrize("running", [True, False])
def test_a_folder_of_an_earlier_release_is_closed(tmp_path: Path, running: bool) -> None:
    data = tmp_path / LONG
    with earlier_release(data) as open_url:
        look = psql(open_url, "SELECT 1")
        assert as_another(NOBODY, *look).returncode == 0
        if running:
            with embedded.postgres(data, SMALL) as url, psycopg.connect(url) as database:
                assert database.execute("SELECT 1").fetchone() == (1,)
            assert "Permission denied" in as_another(NOBODY, *look).stderr
            socket_folder(open_url).chmod(0o777)
            assert "Peer authentication failed" in as_another(NOBODY, *look).stderr
            # The process of the earlier release uses it still.
            assert subprocess.run(look, check=False, capture_output=True).returncode == 0
    with embedded.postgres(data, SMALL) as url, psycopg.connect(url) as database:
        assert database.execute("SELECT 1").fetchone() == (1,)
        assert mode(socket_folder(url)) == 0o700
        assert as_another(NOBODY, *psql(url, "SELECT 1")).returncode != 0


@as_root
def test_commands_work_on_a_server_that_another_process_runs(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / LONG))
    with embedded.postgres(tmp_path / LONG, SMALL) as url:
        commands_work(*data, backup=tmp_path / "backup")
        with psycopg.connect(url) as database:
            assert database.execute("SELECT 1").fetchone() == (1,)
    assert not (tmp_path / LONG / "postgres" / "postmaster.pid").exists()


def commands_work(*data: str, backup: Path, before: tuple[str, ...] = ()) -> None:
    for words in (
        ("db", "upgrade"),
        ("psql", "-c", "SELECT current_user"),
        ("backup", str(backup)),
        ("doctor",),
    ):
        outcome = subprocess.run(
            [*before, sys.executable, "-m", "indexd", *words, *data],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert backup.stat().st_size > 0


@as_root
def test_commands_work_for_a_user_who_is_not_root(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, pwd.getpwuid(NOBODY).pw_gid)
    if as_another(NOBODY, sys.executable, "-c", "import indexd").returncode:
        pytest.skip("the program is installed where others may not enter")
    gid = pwd.getpwuid(NOBODY).pw_gid
    before = ("setpriv", f"--reuid={NOBODY}", f"--regid={gid}", "--clear-groups")
    data = ("--data-dir", str(tmp_path / "data" / LONG))
    commands_work(*data, backup=tmp_path / "backup", before=before)
    assert mode(tmp_path / "data") == 0o700


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    """The server's user may write in the data folder; what root writes there must stay there."""
    with embedded.postgres(tmp_path, SMALL):
        pass
    other = tmp_path / "other"
    other.write_text("kept")
    names = ("indexd.conf", "pg_hba.conf", embedded.USERS)
    for name in names:
        (tmp_path / "postgres" / name).unlink()
        (tmp_path / "postgres" / name).symlink_to(other)
    with embedded.postgres(tmp_path, SMALL):
        assert json.loads((tmp_path / "postgres" / embedded.USERS).read_text()) == [os.getpid()]
    assert other.read_text() == "kept"
    assert not any((tmp_path / "postgres" / name).is_symlink() for name in names)


def test_libpqs_variables_move_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "6000")
    monkeypatch.setenv("PGDATA", "/nowhere")
    with embedded.postgres(tmp_path, SMALL) as url, psycopg.connect(url) as database:
        assert database.info.port == 5432


def test_a_path_too_long_for_any_socket_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / LONG
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with (
        pytest.raises(ConfigurationError, match="is too long for a socket"),
        embedded.postgres(tmp_path / "data" / LONG),
    ):
        pass
    assert list(temporary.iterdir()) == []


def test_without_useradd_the_cause_and_the_ways_out_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(name: str) -> Any:
        raise KeyError(name)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", missing)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ConfigurationError) as refused:
        server_user.server_user()
    assert "the user pgserver is missing and there is no useradd" in refused.value.message
    assert "run indexd as a user who is not root" in refused.value.message
    checked = CliRunner().invoke(commands, ["doctor", "--data-dir", str(tmp_path / "data")])
    assert "database: failed (PostgreSQL does not run as root" in checked.output
    assert "policies: ok" in checked.output


def test_roots_data_lies_where_no_folder_is_private(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert settings.default_data_path() == Path("/var/lib/indexd")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert settings.default_data_path() == tmp_path / "indexd"


def test_root_is_told_of_data_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(settings, "ROOTS_FOLDER", str(tmp_path / "new"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "indexd" / "postgres").mkdir(parents=True)
    with (
        pytest.raises(ConfigurationError, match=f"`mv {tmp_path}/indexd {tmp_path}/new`"),
        running_database(Settings()),
    ):
        pass
    assert not (tmp_path / "new").exists()
