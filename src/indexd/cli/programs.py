"""Finds the right program of PostgreSQL (psql, pg_dump, pg_restore) and its arguments.

The programs of the embedded PostgreSQL are built without TLS. So for an external database, those on
the PATH are preferred. For the embedded server, its own programs are used.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict

from indexd.db import embedded
from indexd.errors import ConfigurationError
from indexd.urls import for_command_line, libpq_url

Name = Literal["psql", "pg_dump", "pg_restore"]

ENCRYPTING = ("require", "verify-ca", "verify-full")
"""Values of sslmode with which libpq refuses an unencrypted connection."""

NO_SERVER = "/nonexistent"
"""A socket folder without a server, to test for TLS: libpq checks sslmode before it connects."""


class Program:
    """One executable file. It is run to find out its version and whether it supports TLS."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def version(self) -> str:
        """The version, such as 18.4; empty if the program does not run."""
        found = re.search(r"\d[\d.]*", self._said("--version"))
        return found[0] if found else ""

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0] or 0)

    @cached_property
    def has_tls(self) -> bool:
        """Whether it supports TLS. Works for psql and pg_dump only: pg_restore does not connect."""
        said = self._said(f"--dbname=host={NO_SERVER} sslmode=require")
        return "SSL support is not compiled in" not in said

    def _said(self, argument: str) -> str:
        try:
            outcome = subprocess.run(  # noqa: S603 (the admin's own)
                [self.path, argument],
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                check=False,
            )
        except OSError:
            return ""
        return outcome.stdout + outcome.stderr


class Server:
    """A database as the service reaches it. It connects when a property is read first."""

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def _look(self) -> tuple[int, bool]:
        try:
            with psycopg.connect(libpq_url(self._url)) as connection:
                encrypted = connection.pgconn.ssl_in_use
                if not encrypted:
                    found = connection.execute(
                        "SELECT encrypted FROM pg_stat_gssapi WHERE pid = pg_backend_pid()"
                    ).fetchone()
                    encrypted = bool(found and found[0])
                return connection.info.server_version // 10_000, encrypted
        except psycopg.OperationalError as error:
            [first, *_] = str(error).splitlines()
            raise ConfigurationError(f"the database cannot be reached: {first}") from error

    @property
    def major(self) -> int:
        return self._look[0]

    @property
    def is_encrypted(self) -> bool:
        return self._look[1]


def of_archives() -> str:
    """The newest pg_restore: it reads archives of its own and older versions, without a server."""
    return str(max(_candidates("pg_restore", own_server=False), key=lambda one: one.major).path)


def connecting(name: Name, url: str, *, own_server: bool) -> tuple[list[str], dict[str, str]]:
    """The program with the argument that names the database, and its environment.

    Raises ConfigurationError if no program is new enough for the server, or if none supports TLS
    although the connection of the service is encrypted.
    """
    conninfo, secrets = for_command_line(url)
    candidates = _candidates(name, own_server=own_server)
    if own_server:
        chosen = candidates[0]
    else:
        server = Server(url)
        mode = _sslmode(url)
        unencrypted = mode == "disable" or _is_local(url)
        chosen = _chosen(name, candidates, server, wants_tls=mode if not unencrypted else None)
    return [str(chosen.path), f"--dbname={conninfo}"], os.environ | secrets


def _chosen(
    name: Name, candidates: Sequence[Program], server: Server, *, wants_tls: str | None
) -> Program:
    for one in candidates:
        # pg_dump refuses a server that is newer than itself; psql does not.
        if name == "pg_dump" and one.major < server.major:
            continue
        if wants_tls is None or one.has_tls:
            return one
        if wants_tls not in ENCRYPTING and not server.is_encrypted:
            return one
    needed = f"{name} of PostgreSQL {server.major} or newer" if name == "pg_dump" else name
    if wants_tls is not None:
        needed += " with TLS"
    found = ", ".join(
        f"{one.path} ({one.version}{'' if one.has_tls else ', without TLS'})" for one in candidates
    )
    raise ConfigurationError(f"expected a {needed} on the PATH for this database, found {found}")


def _candidates(name: Name, *, own_server: bool) -> list[Program]:
    """The programs of this name in order of preference. Raises ConfigurationError for none."""
    own = [embedded.BINARIES / name]
    paths = own if own_server else [*_on_the_path(name), *own]
    found = [Program(path) for path in paths if path.exists()]
    if not found:
        raise ConfigurationError(f"{name} is neither part of indexd here nor on the PATH")
    return found


def _on_the_path(name: Name) -> Iterator[Path]:
    for folder in os.get_exec_path():
        if folder and (path := shutil.which(name, path=folder)):
            yield Path(path)


def _sslmode(url: str) -> str:
    given = conninfo_to_dict(libpq_url(url)).get("sslmode")
    return str(given or os.environ.get("PGSSLMODE") or "prefer")


def _is_local(url: str) -> bool:
    """Whether all hosts are certainly local sockets, which have no TLS."""
    given = conninfo_to_dict(libpq_url(url))
    elsewhere = ("hostaddr", "service")
    if any(given.get(name) or os.environ.get(f"PG{name.upper()}") for name in elsewhere):
        return False
    hosts = str(given.get("host") or os.environ.get("PGHOST") or "")
    return all(host == "" or host.startswith(("/", "@")) for host in hosts.split(","))
