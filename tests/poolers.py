"""PgBouncer between a test and its PostgreSQL, where it is installed."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

START_SECONDS = 20


def program() -> str:
    """Where PgBouncer is; the variable PGBOUNCER names another one than that of the system."""
    found = os.environ.get("PGBOUNCER") or shutil.which(
        "pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    )
    if found is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    return found


def version() -> tuple[int, int]:
    told = subprocess.run([program(), "--version"], capture_output=True, text=True, check=True)
    numbers = re.search(r"(\d+)\.(\d+)", told.stdout)
    assert numbers is not None
    return int(numbers[1]), int(numbers[2])


@contextmanager
def pgbouncer(url: str, pool_mode: str, **settings: object) -> Iterator[str]:
    """The URL of this database through a PgBouncer of its own. Its users need no password there."""
    where = conninfo_to_dict(url)
    # Where the test's PostgreSQL wants a password, PgBouncer has it from here.
    login = " ".join(
        f"{name}={where[name]}" for name in ("host", "port", "password") if where.get(name)
    )
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="indexd-pgbouncer-") as folder:
        Path(folder).chmod(0o755)
        users = Path(folder, "users")
        users.write_text("".join(f'"{name}" ""\n' for name in (where["user"], "limited")))
        options = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": users,
            "pool_mode": pool_mode,
            "default_pool_size": 5,
            "max_client_conn": 500,
            **settings,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in options.items())
        ini = Path(folder, "pgbouncer.ini")
        ini.write_text(f"[databases]\n* = {login}\n[pgbouncer]\n{lines}")
        log = Path(folder, "log")
        with log.open("w") as out:
            process = subprocess.Popen(
                [program(), str(ini)],
                stdout=out,
                stderr=subprocess.STDOUT,
                user=_user(str(where.get("host") or "")) if os.geteuid() == 0 else None,
            )
            try:
                _wait_for(port, process, log)
                yield (
                    f"postgresql://{quote(str(where['user']))}@127.0.0.1:{port}/{where['dbname']}"
                )
            finally:
                process.terminate()
                process.wait(10)


def _user(host: str) -> str | int:
    """PgBouncer refuses to run as root, and must get at the socket of the server."""
    return Path(host).stat().st_uid if host.startswith("/") else "nobody"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail(f"PgBouncer did not start: {log.read_text()}")


def backend_pids(url: str) -> set[int]:
    """The server connections that one client connection meets in several transactions, while
    another one keeps them moving."""
    met = set()
    with (
        psycopg.connect(url, autocommit=True) as one,
        psycopg.connect(url, autocommit=True) as other,
    ):
        for turn in range(6):
            if turn % 2:
                with other.transaction():
                    other.execute("SELECT 1")
                    met |= set(one.execute("SELECT pg_backend_pid()").fetchone() or ())
            else:
                met |= set(one.execute("SELECT pg_backend_pid()").fetchone() or ())
    return met
