"""One PostgreSQL for the whole run, migrated once; every test gets a clone of its database."""

import asyncio
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import httpx
import numpy as np
import psycopg
import pytest
from click.testing import CliRunner
from litestar import Litestar
from litestar.di import Provide
from numpy.typing import NDArray
from psycopg.conninfo import conninfo_to_dict
from pytest_postgresql import factories
from pytest_postgresql.executors.noop import NoopExecutor

from indexd.app import create_app
from indexd.cli import commands
from indexd.context import Service
from indexd.db import embedded, migrate
from indexd.db.schema import metadata
from indexd.db.server_user import server_user
from indexd.errors import ConfigurationError
from indexd.settings import Settings
from tests import answers

T = TypeVar("T")


class Client(httpx.AsyncClient):
    """An application as its clients meet it; requests made at once run at once.

    (Litestar's own test client makes one after the other, whatever it is asked for.) The
    application lives in a thread: a test that waits for the database must not stop it.
    """

    def __init__(self, app: Litestar) -> None:
        self.app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._done = asyncio.Event()
        super().__init__(
            transport=_Elsewhere(self),
            base_url="http://localhost:8080",
            timeout=120,
            event_hooks={"response": [_described]},
        )

    async def within(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something where the application lives."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _live(self, started: asyncio.Event) -> None:
        try:
            async with self.app.lifespan():
                started.set()
                await self._done.wait()
        finally:
            started.set()

    async def _start(self) -> None:
        started = asyncio.Event()
        self._life = asyncio.create_task(self._live(started))
        await started.wait()
        if self._life.done():
            await self._life

    async def _stop(self) -> None:
        self._done.set()
        await self._life

    async def __aenter__(self) -> Self:
        self._thread.start()
        try:
            await self.within(self._start())
        except BaseException:
            self._end()
            raise
        return await super().__aenter__()

    async def __aexit__(self, *about: Any) -> None:
        await super().__aexit__(*about)
        try:
            await self.within(self._stop())
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _described(response: httpx.Response) -> None:
    """Every answer of every test is one that the OpenAPI document describes."""
    await response.aread()
    answers.described().check(response)


class _Elsewhere(httpx.AsyncBaseTransport):
    """Hands requests over to where the application lives."""

    def __init__(self, client: Client) -> None:
        self._client = client
        # Both speak ASGI, in types of their own.
        self._asgi = httpx.ASGITransport(cast(Any, client.app), raise_app_exceptions=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._client.within(self._asgi.handle_async_request(request))


Sql = Callable[..., list[tuple[Any, ...]]]

SHARED = Path(__file__).parents[1].parent / "shared" / "data"

FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "512MB",
    "autovacuum": "off",
}

_running = ExitStack()


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs the tests that pytest-xdist hands to it."""
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """Start the embedded server, unless --postgresql-host names another one.

    With `-n`, each worker starts a server of its own; the process that hands tests out needs none.
    Servers and commands have no embedder, unless a test asks for one.
    """
    os.environ.setdefault("INDEXD_EMBEDDER_PROVIDER", "none")
    hands_out = bool(getattr(config.option, "dist", "no") != "no") and not is_worker(config)
    if config.option.postgresql_host or config.option.collectonly or hands_out:
        return
    folder = _running.enter_context(tempfile.TemporaryDirectory(prefix="indexd-test-"))
    Path(folder).chmod(0o755)
    url = _running.enter_context(embedded.postgres(Path(folder), FAST))
    config.option.postgresql_host = str(conninfo_to_dict(url)["host"])
    config.option.postgresql_port = "5432"
    config.option.postgresql_user = "postgres"


OF_THEIR_OWN = {"clone", "older", "standby_url", "external"}
"""Fixtures that make a database or a server for one test: 0.1 s and more."""


MEASURE_TIMES = {
    "test_admission",
    "test_embedders",
    "test_knee",
    "test_large_bodies",
    "test_latency_budget",
    "test_slow_bodies",
    "test_workers",
}
"""Files with tests that compare a time with a limit, or order what happens by short waits."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test with a database or a server of its own is slow, whether it says so or not.

    A file runs in one worker, because its tests share what is made once per module. Files whose
    tests measure times share one worker, so that no two of them run at once.
    """
    for item in items:
        if OF_THEIR_OWN & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
        group = "times" if item.path.stem in MEASURE_TIMES else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_unconfigure() -> None:
    _running.close()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder of the test's own. Unlike pytest's, it lies where the user may enter whom a
    PostgreSQL of root's runs as, and its path is short enough for a socket.
    """
    with tempfile.TemporaryDirectory(prefix="indexd-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder).resolve()


def _migrate(**where: Any) -> None:
    migrate.upgrade(_url(where["host"], where["port"], where["user"], where["dbname"]))


def _url(host: str, port: int, user: str, dbname: str) -> str:
    return f"postgresql://{user}@/{dbname}?host={host}&port={port}"


server = factories.postgresql_noproc(load=[_migrate])
clone = factories.postgresql("server")
"""A connection to a database of the test's own, at head; takes a tenth of a second."""


@pytest.fixture
def url(clone: psycopg.Connection[Any]) -> str:
    """The URL of the test's own database."""
    info = clone.info
    return _url(info.host, info.port, info.user, info.dbname)


@pytest.fixture
def own_sql(clone: psycopg.Connection[Any]) -> Sql:
    """Look into the test's own database, as an admin in psql would."""
    return _runner(clone)


@pytest.fixture
def settings(url: str) -> Settings:
    return _settings(url)


def _settings(url: str) -> Settings:
    return Settings(
        database_url=url,
        pool_size=8,
        pool_timeout_seconds=10,
        queue_length=2_000,
        caller_share=1,  # all clients of a test have one address
        embedder_provider="none",  # whatever is installed here
    )


@pytest.fixture
async def own_client(settings: Settings) -> AsyncIterator[Client]:
    """An application of the test's own, over a database of its own."""
    async with Client(create_app(settings)) as opened:
        yield opened


@pytest.fixture(scope="session")
def common_url(server: NoopExecutor) -> Iterator[str]:
    """One more clone, for all the tests that leave nothing but rows behind."""
    with psycopg.connect(
        _url(server.host, server.port, server.user, "postgres"), autocommit=True
    ) as admin:
        admin.execute(f'CREATE DATABASE common TEMPLATE "{server.template_dbname}"')
        yield _url(server.host, server.port, server.user, "common")
        admin.execute("DROP DATABASE common WITH (FORCE)")


@pytest.fixture(scope="session")
async def common_client(common_url: str) -> AsyncIterator[Client]:
    async with Client(create_app(_settings(common_url))) as opened:
        yield opened


@pytest.fixture(scope="session")
def common_connection(common_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(common_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def sql(common_connection: psycopg.Connection[Any]) -> Sql:
    """Look into the common database, as an admin in psql would. It is empty at first."""
    _empty(common_connection)
    return _runner(common_connection)


LARGE = 32 * 1024 * 1024
"""Bytes of the database's largest table from which its files are made anew."""


def _empty(connection: psycopg.Connection[Any]) -> None:
    """Delete all rows. TRUNCATE makes new files for each table and index: 70 ms, deletes take 2."""
    tables = [str(table) for table in metadata.sorted_tables]
    [[size]] = connection.execute(
        "SELECT max(pg_total_relation_size(name::regclass)) FROM unnest(%s::text[]) AS name",
        [tables],
    ).fetchall()
    emptied = f"TRUNCATE {', '.join(tables)}"
    if size < LARGE:
        emptied = "; ".join(f"DELETE FROM {table}" for table in tables)
    while True:
        try:
            connection.execute(emptied)
        except psycopg.errors.DeadlockDetected:
            continue  # with what the application does in the background
        return


@pytest.fixture
def client(common_client: Client, sql: Sql) -> Client:
    """The whole application over the common database."""
    return common_client


def _runner(connection: psycopg.Connection[Any]) -> Sql:
    connection.autocommit = True

    def run(statement: str, *values: object) -> list[tuple[Any, ...]]:
        cursor = connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real corpus, where it lies beside the project."""
    if not (SHARED / "gitlog.parquet").exists():
        pytest.skip("the real corpus is not beside the project")
    return SHARED


def document(doc_id: str, *vectors: Sequence[float] | NDArray[Any], **rest: Any) -> dict[str, Any]:
    """An upsert request with one chunk per vector; `texts` and `metas` go to the chunks."""
    texts = rest.pop("texts", [""] * len(vectors))
    metas = rest.pop("metas", [{}] * len(vectors))
    chunks = [
        {"text": text, "meta": {**meta, "embedding": [float(x) for x in vector]}}
        for vector, text, meta in zip(vectors, texts, metas, strict=True)
    ]
    return {"doc_id": doc_id, "namespace": "notes", "chunks": chunks, **rest}


def command(url: str, *words: str) -> str:
    """What this command of `indexd` prints; it must not fail."""
    found = CliRunner().invoke(commands, [*words, "--database-url", url])
    assert found.exit_code == 0, found.output
    return found.output


def refusal(url: str, *words: str) -> str:
    """The one line with which this command of `indexd` fails; `indexd: ` stands before it."""
    found = CliRunner().invoke(commands, [*words, "--database-url", url])
    assert found.exit_code == 1, found.output
    # Other exceptions would be tracebacks.
    assert isinstance(found.exception, ConfigurationError), found.exc_info
    assert "\n" not in found.exception.message
    return found.exception.message


def service_of(app: Litestar) -> Service:
    """What the handlers of this application are given."""
    provided = app.dependencies["service"]
    assert isinstance(provided, Provide)
    service: Service = provided.dependency()
    return service


@pytest.fixture
def older(tmp_path: Path) -> Iterator[str]:
    """A database of PostgreSQL 16, with nothing in it."""
    home, programs = tmp_path / "older", embedded.BINARIES.parents[1] / "pginstall" / "bin"
    home.mkdir()
    user = server_user()
    user.owns(home)

    def run(program: str, *arguments: str | Path) -> None:
        outcome = user.run(programs / program, *arguments, "-D", home)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr

    run("initdb", "--auth=trust", "--username=postgres", "--encoding=utf8")
    run("pg_ctl", "start", "--log", home / "log", "--options", f"-h '' -k {home}")
    yield f"postgresql://postgres@/postgres?host={home}"
    run("pg_ctl", "stop")
