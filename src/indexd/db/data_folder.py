"""The data folder of the embedded PostgreSQL: its configuration, its socket, who may connect.

`indexd.db.embedded` starts and stops the server that uses the folder.
"""

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

from indexd.db.server_user import (
    ROOTS_USER,
    ServerUser,
    name_of,
    require_enterable,
)
from indexd.errors import ConfigurationError

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


def memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_ours(home: Path) -> None:
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


PID, PORT_LINE, SOCKET_LINE, STATUS_LINE = 0, 3, 4, 7
"""Line numbers in postmaster.pid, from 0."""


def state_of(home: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return (home / "postmaster.pid").read_text().splitlines()
    return []


def runs(home: Path, state: list[str]) -> bool:
    """Whether a server of this folder is running, ready or not."""
    with suppress(psutil.Error, ValueError, IndexError):
        # The command line of a zombie is empty.
        return str(home) in psutil.Process(int(state[PID])).cmdline()
    return False


def write_who_may_connect(cluster: Cluster) -> None:
    """Write who may connect, and reload a running server if that changed.

    A server that was started by an earlier release accepts every local user until then.
    """
    who = "".join(f'indexd "{name}" all\n' for name in sorted({"root", cluster.user.name}))
    changed = [
        write(cluster, "pg_hba.conf", _WHO_MAY_CONNECT),
        write(cluster, "pg_ident.conf", _WHO_IS_WHO + who),
    ]
    for name in ("own_hba.conf", "own_ident.conf"):
        if not (cluster.home / name).exists():
            write(cluster, name, "")
    state = state_of(cluster.home)
    if len(state) <= SOCKET_LINE or not runs(cluster.home, state):
        return
    where = Path(state[SOCKET_LINE])
    with suppress(FileNotFoundError):
        if SOCKET_FOLDER.fullmatch(where.name) and where.lstat().st_uid == os.geteuid():
            where.chmod(0o700)
            cluster.user.owns(where)
    if any(changed):
        cluster.user.run(cluster.programs / "pg_ctl", "reload", "-D", cluster.home)


def configure(cluster: Cluster, settings: Mapping[str, str]) -> None:
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
    write(
        cluster,
        "indexd.conf",
        "# Written by indexd at every start; put settings of your own into postgresql.auto.conf\n"
        "# with ALTER SYSTEM, which wins.\n"
        + "".join(f"{name} = '{value}'\n" for name, value in escaped.items()),
    )
    main = (cluster.home / "postgresql.conf").read_text()
    if _INCLUDE not in main:
        write(cluster, "postgresql.conf", f"{main}\n{_INCLUDE}\n")


SOCKET_FOLDER = re.compile(r"indexd-sockets-\w+|[0-9a-f]{10}")
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


def remove_socket_folder(state: list[str]) -> None:
    """Remove the temporary folder of the socket of a server that has stopped."""
    if len(state) > SOCKET_LINE and SOCKET_FOLDER.fullmatch(Path(state[SOCKET_LINE]).name):
        with suppress(OSError):
            Path(state[SOCKET_LINE]).rmdir()


def write(cluster: Cluster, name: str, text: str) -> bool:
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
