"""`indexd serve`: the service, with its own PostgreSQL if it is given none."""

import asyncio
import signal

import click
import msgspec
import psycopg
import structlog
import uvicorn

from indexd import db, logs, migrate
from indexd.app import create_app
from indexd.cli.common import database_options, load, running_database
from indexd.errors import ConfigurationError
from indexd.settings import Settings
from indexd.urls import libpq_url

log = structlog.get_logger()


@click.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
@database_options
def serve(
    host: str | None, port: int | None, database_url: str | None, data_dir: str | None
) -> None:
    """Serve the HTTP API until SIGTERM."""
    settings = load(database_url=database_url, data_dir=data_dir)
    default_host, default_port = settings.host_and_port
    address = (host or default_host, default_port if port is None else port)
    logs.configure(settings)
    run(settings, *address)


def run(settings: Settings, host: str, port: int) -> None:
    with running_database(settings) as url:
        if settings.database_url is None:
            migrate.upgrade(url)
        require_ready(url)
        app = create_app(msgspec.structs.replace(settings, database_url=url))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                access_log=False,
                log_config=None,
                lifespan="on",
                timeout_graceful_shutdown=settings.shutdown_seconds,
                server_header=False,
            )
        )
        own = "own" if settings.database_url is None else "external"
        log.info("serving", host=host, port=port, database=own)
        # uvicorn stops gracefully, then raises the signal again for whoever handled it before it.
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, lambda *_: None)
        server.run()


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
