"""Upgrade and rollback under traffic: which programs serve on which schema, and in what order."""

import asyncio
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from indexd import gauges
from indexd.app import create_app
from indexd.db import migrate, revisions
from indexd.settings import Settings
from tests.conftest import Client, command, document
from tests.test_migrations import become
from tests.test_serve import free_port, is_ready, wait_until

RUN_AGAIN = {"the migration collided with a write, it is run again"}
"""What a migration may print under traffic: of two transactions that wait for one another,
PostgreSQL ends either."""

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

PREVIOUS = "6907a29"
"""Commit of the previous release's program, which wants its exact revision."""

PREVIOUS_HEAD = "0014"

SEARCH = {"namespace": "notes", "embedding": [1, 0], "k": 3}

CLIENTS = 3

NEXT = "0099"
"""The revision of a later release, in tests."""


async def within_two_seconds(condition: Callable[[], Any]) -> bool:
    for _ in range(100):
        if await condition():
            return True
        await asyncio.sleep(0.05)
    return False


async def test_a_newer_schema_that_admits_the_program_is_served_and_told(
    own_client: Client, clone: psycopg.Connection[Any]
) -> None:
    become(clone, NEXT, oldest_program=revisions.head())
    assert (await own_client.post("/index/upsert", json=document("a", [1, 0]))).status_code == 200
    ready = await own_client.get("/readyz")
    assert ready.status_code == 200
    assert f"schema: ok (at {NEXT}, newer than this program" in ready.text


async def test_a_newer_schema_that_does_not_admit_the_program_is_503_until_it_does(
    own_client: Client, clone: psycopg.Connection[Any]
) -> None:
    become(clone, NEXT, oldest_program=NEXT)

    async def refused() -> bool:
        return (await own_client.post("/index/search", json=SEARCH)).status_code == 503

    assert await within_two_seconds(refused)
    requests = {
        "/index/search": SEARCH,
        "/index/upsert": document("a", [1, 0]),
        "/index/delete": {"doc_id": "a", "namespace": "notes"},
        "/index/forget": {
            "filter": {"namespace": "notes", "doc_id": "a"},
            "reason": "x",
            "confirm": True,
        },
    }
    for route, body in requests.items():
        answer = await own_client.post(route, json=body)
        assert answer.status_code == 503, (route, answer.text)
        assert answer.json()["code"] == "database_unavailable"
        assert "the program is too old" in answer.json()["error"]
        assert int(answer.headers["retry-after"]) >= 1
    ready = await own_client.get("/readyz")
    assert ready.status_code == 503
    assert f"schema: failed (at {NEXT}, newer than this program" in ready.text
    assert "the program is too old" in ready.text
    assert (await own_client.get("/healthz")).status_code == 200

    become(clone, NEXT, oldest_program=revisions.head())

    async def served() -> bool:
        return (await own_client.post("/index/search", json=SEARCH)).status_code == 200

    assert await within_two_seconds(served)


async def test_a_statement_that_the_new_schema_refuses_is_no_500(
    settings: Settings, clone: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema changes between two looks at it."""
    monkeypatch.setattr(gauges, "SECONDS", 600.0)
    async with Client(create_app(settings)) as client:
        assert (await client.post("/index/upsert", json=document("a", [1, 0]))).status_code == 200
        clone.execute("ALTER TABLE indexd.documents RENAME digest TO fingerprint")
        become(clone, NEXT, oldest_program=NEXT)
        answer = await client.post("/index/upsert", json=document("b", [1, 0]))
        assert answer.status_code == 503, answer.text
        assert "the program is too old" in answer.json()["error"]


async def test_a_statement_that_fails_on_a_schema_that_fits_stays_a_500(
    settings: Settings, clone: psycopg.Connection[Any]
) -> None:
    async with Client(create_app(settings)) as client:
        clone.execute("ALTER TABLE indexd.documents RENAME digest TO fingerprint")
        clone.commit()
        # No route documents a 500, so the client of the tests refuses the answer.
        with pytest.raises(AssertionError, match="500: not a documented status"):
            await client.post("/index/upsert", json=document("b", [1, 0]))


class Traffic:
    """Clients that search, write and forget without a pause, against servers that come and go.

    Counts the answers of each server by status.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Counter[int]] = {}
        self.failed: list[str] = []
        self._servers: dict[str, str] = {}
        self._over = threading.Event()
        self._counting = threading.Lock()
        self._at_work = [threading.Lock() for _ in range(CLIENTS)]

    def send_to(self, name: str, url: str) -> None:
        self.answers.setdefault(name, Counter())
        self._servers[name] = url

    def leave(self, name: str) -> None:
        """Send it nothing more, and wait until nothing of it is under way."""
        del self._servers[name]
        for lock in self._at_work:
            with lock:
                pass

    def run(self, number: int) -> None:
        with httpx.Client(timeout=60) as client:
            turn = 0
            while not self._over.is_set():
                turn += 1
                with self._at_work[number]:
                    for name, url in list(self._servers.items()):
                        for route, body in _requests(f"{number}-{name}-{turn % 50}"):
                            try:
                                answer = client.post(f"{url}{route}", json=body)
                            except httpx.HTTPError as error:
                                self.failed.append(f"{name} {route} {error!r}")
                            else:
                                self._count(name, answer)
                time.sleep(0.001)  # so that `leave` gets the lock

    def _count(self, name: str, answer: httpx.Response) -> None:
        with self._counting:
            self.answers[name][answer.status_code] += 1
        clean = answer.status_code == 503 and "retry-after" in answer.headers and _is_error(answer)
        if not (answer.status_code == 200 or clean):
            self.failed.append(f"{name} {answer.request.url.path} {answer.text}")

    def end(self) -> None:
        self._over.set()


def _is_error(answer: httpx.Response) -> bool:
    return set(answer.json()) >= {"error", "code"}


def _requests(doc_id: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "/index/upsert", document(doc_id, [1, 0.5], texts=["one"])
    yield "/index/search", SEARCH
    yield "/index/search", {"namespace": "notes", "query": "one", "k": 3}
    chosen = {"namespace": "notes", "doc_id": doc_id}
    yield "/index/forget", {"filter": chosen, "reason": "traffic", "confirm": True}


@contextmanager
def traffic() -> Iterator[Traffic]:
    sending = Traffic()
    threads = [threading.Thread(target=sending.run, args=[number]) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield sending
    finally:
        sending.end()
        for thread in threads:
            thread.join(60)


@contextmanager
def program(url: str, log: Path, source: Path = ROOT) -> Iterator[str]:
    """`indexd serve` of this source, ready; gives its address."""
    address = f"127.0.0.1:{free_port()}"
    with log.open("a") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "indexd", "serve", "--database-url", url],
            env={
                # The release before does not know how to do without a provider.
                **{key: one for key, one in os.environ.items() if "EMBEDDER" not in key},
                "PYTHONPATH": str(source / "src"),
                "INDEXD_BIND_ADDR": address,
            },
            cwd=source,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
                wait_until(lambda: is_ready(client), process)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(30)


def status_of(url: str) -> int:
    return httpx.get(f"{url}/readyz", timeout=30).status_code


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """The source of the previous release; skips where the history does not hold it."""
    archived = subprocess.run(
        ["git", "archive", PREVIOUS], cwd=ROOT, capture_output=True, check=False
    )
    if archived.returncode:
        pytest.skip("the previous release is not in the history here")
    folder = tmp_path / "previous"
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def for_a_while() -> None:
    time.sleep(3)


def test_upgrade_from_the_previous_release_and_back_loses_no_request(
    url: str, previous: Path, tmp_path: Path
) -> None:
    """In the order of docs/operations.md. The previous program wants its exact revision at its
    start and in /readyz, but serves on.
    """
    migrate.downgrade(url, PREVIOUS_HEAD)
    with traffic() as sent, program(url, tmp_path / "old", previous) as old:
        sent.send_to("old", old)
        for_a_while()
        # Upgrade: migrate, start the new one, take the old one out.
        assert set(command(url, "db", "upgrade").splitlines()) <= RUN_AGAIN
        assert status_of(old) == 503
        with program(url, tmp_path / "new") as new:
            sent.send_to("new", new)
            for_a_while()
            sent.leave("old")
            # Rollback: the old one starts on its own schema only, so that comes first.
            told = command(url, "db", "downgrade", PREVIOUS_HEAD)
            assert set(told.splitlines()) <= RUN_AGAIN
            with program(url, tmp_path / "old again", previous) as again:
                sent.send_to("old again", again)
                for_a_while()
                assert status_of(new) == 503
                sent.leave("new")
                for_a_while()
                sent.leave("old again")
    print(sent.answers)
    assert sent.failed == []
    assert sent.answers["old"][503] == sent.answers["old again"][503] == 0
    assert sent.answers["old"][200] > 0
    assert sent.answers["new"][200] > 0
    assert sent.answers["new"][503] > 0
    assert sent.answers["old again"][200] > 0


def test_upgrade_to_a_later_release_that_admits_this_one_and_back_has_no_503_at_all(
    url: str, tmp_path: Path
) -> None:
    with traffic() as sent, program(url, tmp_path / "first") as first:
        sent.send_to("first", first)
        for_a_while()
        with psycopg.connect(url) as connection:
            become(connection, NEXT, oldest_program=revisions.head())
        for_a_while()
        assert status_of(first) == 200
        # Rollback: this program starts on the newer schema, without a downgrade.
        with program(url, tmp_path / "second") as second:
            sent.send_to("second", second)
            for_a_while()
            sent.leave("second")
        sent.leave("first")
    print(sent.answers)
    assert sent.failed == []
    for answers in sent.answers.values():
        assert answers.keys() == {200}
