"""`indexd serve`: run the service, with an embedded PostgreSQL if no database is set."""

import asyncio
import errno
import functools
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import click
import msgspec
import structlog
import uvicorn
from litestar import Litestar
from uvicorn.supervisors import Multiprocess

from indexd import policy
from indexd.app import create_app
from indexd.background import key_cache
from indexd.cli.common import running_database, with_settings
from indexd.clock import now
from indexd.db import migrate
from indexd.db.first_contact import first_contact
from indexd.db.pool import Database
from indexd.errors import ConfigurationError, DatabaseReadOnly
from indexd.settings import Settings
from indexd.store import keys, policies
from indexd.telemetry import logs
from indexd.telemetry.metrics import MULTIPROCESS

log = structlog.get_logger()

WORKER_ANSWERS_SECONDS = 60
"""Seconds after which a worker that does not answer is killed. A starting worker answers after it
has imported the program, which on a busy machine takes longer than uvicorn's default of 5 s."""


EXIT_SECONDS = 5
"""Seconds that a worker without a parent has to exit, after its requests have ended or were cut."""


class Workers(Multiprocess):
    """uvicorn's supervisor, which also notices a worker that dies while it is asked for its health.

    Our copy of each child's end of the pipe is closed. Otherwise uvicorn would block on reading
    from a dead worker, and ignore signals meanwhile.
    """

    def keep_subprocess_alive(self) -> None:
        for process in self.processes:
            process.child_conn.close()
        super().keep_subprocess_alive()


@click.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
@click.option("--workers", type=click.IntRange(1), help="Processes that share the port.")
@click.option("--insecure", is_flag=True, help="Serve without keys on an address others can reach.")
@with_settings
def serve(
    settings: Settings, host: str | None, port: int | None, workers: int | None, insecure: bool
) -> None:
    """Serve the HTTP API until SIGTERM."""
    if workers is not None:
        settings = msgspec.structs.replace(settings, workers=workers)
    default_host, default_port = settings.host_and_port
    host, port = host or default_host, default_port if port is None else port
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    settings = msgspec.structs.replace(settings, bind_addr=address)
    if not (settings.authenticates or settings.is_loopback or insecure):
        raise ConfigurationError(
            f"auth: off on {host}, which others can reach, needs --insecure as well"
        )
    logs.configure(settings)
    run(settings)


def run(settings: Settings) -> None:
    # The address comes first: a server that cannot have it must not change the database.
    with (
        bound(settings) as sockets,
        running_database(settings) as direct_url,
        metrics_folder(settings.workers),
    ):
        host, port = sockets[0].getsockname()[:2]
        url = settings.database_url or direct_url
        if settings.database_url is None:
            migrate.upgrade(url, or_newer=True)
        require_ready(settings, url)
        prepare(url, settings)
        own = "own" if settings.database_url is None else "external"
        if not settings.authenticates:
            log.warning("authentication is off: whoever reaches this address may do everything")
        log.info("serving", host=host, port=port, database=own, workers=settings.workers)
        # uvicorn pickles it for the workers, so it is a function and not the application itself.
        factory = functools.partial(
            application, msgspec.structs.replace(settings, database_url=url)
        )
        config = uvicorn.Config(
            factory,
            factory=True,
            host=host,
            port=port,
            workers=settings.workers,
            timeout_worker_healthcheck=WORKER_ANSWERS_SECONDS,
            access_log=False,
            log_config=None,
            lifespan="on",
            timeout_graceful_shutdown=settings.shutdown_seconds,
            server_header=False,
            # Logs and limits use the client's address. Without a known proxy, its headers are
            # ignored, because every client could send them.
            proxy_headers="FORWARDED_ALLOW_IPS" in os.environ,
        )
        if settings.workers > 1:
            factory()  # reports an error once; failing workers would be restarted without end
        # uvicorn stops gracefully, and then raises the signal again for the previous handler.
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, lambda *_: None)
        if settings.workers == 1:
            uvicorn.Server(config).run(sockets)
        else:
            Workers(config, sockets=sockets).run()


@contextmanager
def bound(settings: Settings) -> Iterator[list[socket.socket]]:
    """Yield sockets that are bound to the address, but do not listen yet.

    Until they listen, connections of clients are refused at once instead of waiting. Raises
    ConfigurationError if the address is not available.
    """
    host, port = settings.host_and_port
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        try:
            places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family, kind, protocol, _, address in dict.fromkeys(places):
                if sockets and port == 0:  # any free port, but the same one for all addresses
                    port = sockets[0].getsockname()[1]
                one = opened.enter_context(socket.socket(family, kind, protocol))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind((address[0], port, *address[2:]))
                sockets.append(one)
        except OSError as error:
            raise ConfigurationError(_cannot_listen(settings.bind_addr, error)) from error
        yield sockets


def _cannot_listen(address: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{address} is in use, perhaps by another indexd: name another one with --port"
    return f"cannot listen on {address}: {error.strerror}"


def application(settings: Settings) -> Litestar:
    """The application of one worker process."""
    logs.configure(settings)
    end_with_the_parent(settings.shutdown_seconds)
    # A worker that replaces a dead one must not overwrite policies that were applied meanwhile.
    return create_app(settings, loads_policies=False)


def end_with_the_parent(shutdown_seconds: float) -> None:
    """Stop this worker, as on SIGTERM, when the server process that started it has ended.

    Without a parent, nothing would stop the worker, and it would keep the port. If it does not stop
    in time, `os._exit` ends it, because `sys.exit` ends only the thread that calls it.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(shutdown_seconds + EXIT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@contextmanager
def metrics_folder(workers: int) -> Iterator[None]:
    """Create the folder in which workers store their metrics, so that each can answer for all."""
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="indexd-metrics-") as folder:
        os.environ[MULTIPROCESS] = folder
        yield


def prepare(url: str, settings: Settings) -> None:
    """Store the admin key of its file and the policies of theirs in the database.

    If the database takes no writes, the server starts with the keys and policies that are stored.
    Raises ConfigurationError if a file is not valid.
    """
    secret, wanted = key_cache.admin_secret(settings), policy.load(settings.policies_path)

    async def put() -> None:
        async with Database(url, settings) as database:
            try:
                if secret is not None:
                    ensure = functools.partial(keys.ensure_from_file, secret=secret, at=now())
                    await database.write(ensure)
                await database.write(functools.partial(policies.apply, policies=wanted))
            except DatabaseReadOnly as error:
                log.warning("keys and policies are read as they stand", cause=error.message)

    asyncio.run(put())


def require_ready(settings: Settings, url: str) -> None:
    """Raise ConfigurationError, with the command to run, if the database cannot be used."""
    for check in asyncio.run(first_contact(url, settings)):
        if not check.ok:
            raise ConfigurationError(f"{check.name}: {check.detail}")
