"""`indexd serve`: the service, with its own PostgreSQL if it is given none."""

import asyncio
import functools
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec
import psycopg
import structlog
import uvicorn
from litestar import Litestar
from uvicorn.supervisors import Multiprocess

from indexd import db, keyring, logs, migrate, policy
from indexd.app import create_app
from indexd.cli.common import database_options, load, running_database
from indexd.db import Database
from indexd.errors import ConfigurationError
from indexd.metrics import MULTIPROCESS
from indexd.service import now
from indexd.settings import Settings
from indexd.store import keys, policies
from indexd.urls import libpq_url

log = structlog.get_logger()

WORKER_ANSWERS_SECONDS = 60
"""A worker that does not answer for so long is killed. One that starts on a busy machine does not
answer before it has imported all this, so 5 s would kill it again and again."""


class Workers(Multiprocess):
    """Learns at once that a worker died, even between a question and its answer: then nobody must
    hold the other end of the pipe, on which uvicorn waits deaf to signals.
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
@database_options
def serve(
    host: str | None,
    port: int | None,
    workers: int | None,
    insecure: bool,
    database_url: str | None,
    data_dir: str | None,
) -> None:
    """Serve the HTTP API until SIGTERM."""
    settings = load(database_url=database_url, data_dir=data_dir, workers=workers)
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
    host, port = settings.host_and_port
    with running_database(settings) as url, metrics_folder(settings.workers):
        if settings.database_url is None:
            migrate.upgrade(url, or_newer=True)
        require_ready(url)
        prepare(url, settings)
        own = "own" if settings.database_url is None else "external"
        if not settings.authenticates:
            log.warning("authentication is off: whoever reaches this address may do everything")
        log.info("serving", host=host, port=port, database=own, workers=settings.workers)
        # Pickled for the workers, so a function of this module and not the application itself.
        made = functools.partial(application, msgspec.structs.replace(settings, database_url=url))
        config = uvicorn.Config(
            made,
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
        )
        if settings.workers > 1:
            made()  # what is wrong is said once, and not by one worker after the other for ever
        # uvicorn stops gracefully, then raises the signal again for whoever handled it before it.
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, lambda *_: None)
        if settings.workers == 1:
            uvicorn.Server(config).run()
        else:
            Workers(config, sockets=[config.bind_socket()]).run()


def application(settings: Settings) -> Litestar:
    logs.configure(settings)
    # A worker that takes another one's place must not undo what was applied since the start.
    return create_app(settings, loads_policies=False)


@contextmanager
def metrics_folder(workers: int) -> Iterator[None]:
    """Where workers keep what they count, so that each answers /metrics for all."""
    if workers == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="indexd-metrics-") as folder:
        os.environ[MULTIPROCESS] = folder
        yield


def prepare(url: str, settings: Settings) -> None:
    """Put the file's admin key and policies in force; raises ConfigurationError for a mistake."""
    secret, wanted = keyring.admin_secret(settings), policy.load(settings.policies_path)

    async def put() -> None:
        async with Database(url, settings) as database:
            if secret is not None:
                ensure = functools.partial(keys.ensure_from_file, secret=secret, at=now())
                await database.write(ensure)
            await database.write(functools.partial(policies.apply, policies=wanted))

    asyncio.run(put())


def require_ready(url: str) -> None:
    """Raise ConfigurationError, naming the command that helps, if it can't be served from."""

    async def look() -> db.Versions:
        async with await psycopg.AsyncConnection.connect(libpq_url(url), autocommit=True) as found:
            return await db.versions(found)

    try:
        versions = asyncio.run(look())
    except psycopg.OperationalError as error:
        raise ConfigurationError(f"the database cannot be reached: {error}") from error
    for check in db.checks(versions):
        if not check.ok:
            raise ConfigurationError(f"{check.name}: {check.detail}")
