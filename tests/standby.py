"""A streaming standby of the server under test, made from the same programs."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from indexd.db.embedded import BINARIES
from indexd.db.server_user import ROOTS_USER

PORT = 5433
"""Another one than the primary's, whose lock file is copied."""

OPTIONS = {
    "port": str(PORT),
    "listen_addresses": "",
    "shared_buffers": "16MB",
    # A query that holds up the replay is cut off at once, so that tests meet it.
    "max_standby_streaming_delay": "0",
    "hot_standby_feedback": "off",
}


@contextmanager
def running(primary: str) -> Iterator[str]:
    """Follows the server of this URL; gives the URL of the same database on the standby."""
    with tempfile.TemporaryDirectory(prefix="indexd-test-") as folder:
        Path(folder).chmod(0o755)
        with _running(primary, Path(folder) / "standby") as url:
            yield url


@contextmanager
def _running(primary: str, home: Path) -> Iterator[str]:
    home.mkdir(mode=0o700)
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = {"user": ROOTS_USER, "group": ROOTS_USER, "extra_groups": []}
        subprocess.run(["chown", f"{ROOTS_USER}:{ROOTS_USER}", home], check=True)
    where = conninfo_to_dict(primary)
    source = make_conninfo("", host=where["host"], port=where["port"], user="postgres")
    _run(
        "pg_basebackup",
        "-d",
        source,
        "-D",
        str(home),
        "-R",
        "--checkpoint=fast",
        "--no-sync",
        **user,
    )
    options = OPTIONS | {"unix_socket_directories": str(home)}
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    with (home / "said").open("w") as said:
        server = subprocess.Popen(
            [BINARIES / "postgres", "-D", home, *settings], stdout=said, stderr=said, **user
        )
    url = f"postgresql://postgres@/{where['dbname']}?host={home}&port={PORT}"
    try:
        _wait_for(url, server, home / "said")
        yield url
    finally:
        server.terminate()
        server.wait(30)


def _run(name: str, *arguments: str, **user: Any) -> None:
    subprocess.run([BINARIES / name, *arguments], check=True, **user)


def _wait_for(url: str, server: subprocess.Popen[bytes], said: Path) -> None:
    for _ in range(600):
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if server.poll() is not None:
                break
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"the standby takes no connections: {said.read_text()}")


def catch_up(primary: str, standby: str) -> None:
    """Wait until the standby has applied all that the primary has done."""
    with psycopg.connect(primary) as connection:
        [(position,)] = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchall()
    with psycopg.connect(standby, autocommit=True) as connection:
        for _ in range(600):
            [(there,)] = connection.execute(
                "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]
            ).fetchall()
            if there:
                return
            time.sleep(0.05)
    raise TimeoutError("the standby does not catch up")
