"""`indexd serve` as a process of its own: start, signals, logs, a database that goes away."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest

from indexd.db import embedded, migrate
from indexd.errors import ConfigurationError
from tests import answers
from tests.conftest import document

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(
    tmp_path: Path, *options: str, **environ: str
) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """A server process and a client of it; what it printed is in tmp_path/out."""
    port = free_port()
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "indexd", "serve", "--port", str(port), *options],
            env={**os.environ, **environ},
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                timeout=30,
                event_hooks={"response": [_described]},
            ) as client:
                wait_until(lambda: process.poll() is None and is_ready(client), process)
                yield client, process
        finally:
            process.terminate()
            process.wait(30)


def _described(response: httpx.Response) -> None:
    response.read()
    answers.described().check(response)


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(3_000):
        if condition():
            return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    pytest.fail("the server did not become what was waited for")


@pytest.fixture
def external(clone: psycopg.Connection[Any], url: str) -> str:
    """A database that the server does not run itself."""
    return url


def test_the_server_brings_its_own_database_and_keeps_the_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for unchanged in (False, True):
        with serving(tmp_path, "--data-dir", str(data)) as (client, process):
            answer = client.post("/index/upsert", json=document("a", [1, 0]))
            assert answer.json()["unchanged"] is unchanged
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        assert not (data / "postgres" / "postmaster.pid").exists()


def test_a_server_that_was_killed_comes_up_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(tmp_path, "--data-dir", str(data)) as (client, process):
        client.post("/index/upsert", json=document("a", [1, 0]))
        process.kill()
        process.wait(30)
        postmaster = int((data / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGKILL)
    with serving(tmp_path, "--data-dir", str(data)) as (client, process):
        assert client.get("/index/stats").json()["namespaces"] == {"notes": 1}
        process.terminate()
        assert process.wait(30) == 0
    assert not (data / "postgres" / "postmaster.pid").exists()


def test_a_process_id_that_is_someone_elses_by_now_keeps_no_database_from_starting(
    tmp_path: Path,
) -> None:
    """As after a container that was killed starts again, in which ids are given out anew."""
    file = tmp_path / "postgres" / "postmaster.pid"
    with embedded.postgres(tmp_path):
        _, _, _, port, sockets, *_ = file.read_text().splitlines()
        left = [file, Path(sockets) / f".s.PGSQL.{port}.lock"]
        written = [file.read_text().splitlines() for file in left]
    with subprocess.Popen(["sleep", "600"]) as other:
        for file, lines in zip(left, written, strict=True):
            file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        with embedded.postgres(tmp_path) as url, psycopg.connect(url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        other.kill()


def test_the_files_of_another_user_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "postgres"
    home.mkdir()
    (home / "PG_VERSION").write_text("18")
    before = home.stat()
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    with (
        pytest.raises(ConfigurationError, match="run this as its owner"),
        embedded.postgres(tmp_path),
    ):
        pass
    assert (home.stat().st_uid, list(home.iterdir())) == (before.st_uid, [home / "PG_VERSION"])


def test_a_request_is_one_log_line_without_text_and_vector(tmp_path: Path, external: str) -> None:
    with serving(tmp_path, "--database-url", external) as (client, _):
        client.post("/index/upsert", json=document("note", [0.123, 0.5], texts=["geheim"]))
        client.post("/index/search", json={"query": "geheim", "namespace": "notes"})
        client.post("/index/search", json={"embedding": [0.123], "namespace": "notes"})
    output = (tmp_path / "out").read_text()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    [upsert] = [line for line in lines if line.get("path") == "/index/upsert"]
    assert upsert["event"] == "received upsert"
    assert upsert["duration_ms"] > 0
    assert {key: upsert[key] for key in ("method", "status", "namespace", "doc_id")} == {
        "method": "POST",
        "status": 200,
        "namespace": "notes",
        "doc_id": "note",
    }
    searches = [line for line in lines if line.get("path") == "/index/search"]
    assert [(line["status"], line["namespace"]) for line in searches] == [
        (200, "notes"),
        (400, "notes"),
    ]
    assert "geheim" not in output
    assert "0.123" not in output


def test_sigterm_finishes_what_is_under_way(tmp_path: Path, external: str) -> None:
    with (
        serving(tmp_path, "--database-url", external) as (client, process),
        psycopg.connect(external) as blocker,
    ):
        client.post("/index/upsert", json=document("a", [1, 0]))
        blocker.execute("SELECT FROM indexd.documents FOR UPDATE")
        with subprocess.Popen(
            [sys.executable, "-c", _DELETE, str(client.base_url)], stdout=subprocess.PIPE
        ) as waiting:
            # On a busy machine the client takes long to start, and would find nobody listening.
            waits = "SELECT FROM pg_locks WHERE NOT granted"
            wait_until(lambda: blocker.execute(waits).fetchone() is not None, process)
            process.terminate()
            time.sleep(1)
            assert process.poll() is None
            blocker.rollback()
            assert waiting.communicate(timeout=20)[0] == b"200"
        assert process.wait(20) == 0


_DELETE = """
import httpx, sys
body = {"doc_id": "a", "namespace": "notes"}
answer = httpx.post(sys.argv[1] + "/index/delete", json=body, timeout=60)
print(answer.status_code, end="")
"""


def test_an_external_database_that_is_not_at_head_is_refused(tmp_path: Path, external: str) -> None:
    migrate.downgrade(external, "0001")
    outcome = subprocess.run(
        [sys.executable, "-m", "indexd", "serve", "--port", "0", "--database-url", external],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert outcome.returncode == 1
    assert "run `indexd db upgrade`" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_busy_port_ends_the_start_before_any_work(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for workers in ("1", "2"):
            options = ("--port", str(port), "--workers", workers, "--data-dir", f"{tmp_path}/data")
            outcome = subprocess.run(
                [sys.executable, "-m", "indexd", "serve", *options],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert (outcome.returncode, outcome.stdout) == (1, "")
            [line] = outcome.stderr.splitlines()
            assert line.startswith(f"indexd: 127.0.0.1:{port} is in use")
    assert not (tmp_path / "data").exists()


def test_a_database_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    home = tmp_path / "elsewhere"
    home.mkdir()
    with embedded.postgres(home, {"shared_buffers": "64MB"}) as url:
        migrate.upgrade(url)
        control = [str(embedded.BINARIES / "pg_ctl"), "-w", "-D", str(home / "postgres")]
        user = {"user": "pgserver"} if os.geteuid() == 0 else {}
        with serving(tmp_path, "--database-url", url, INDEXD_POOL_TIMEOUT_SECONDS="1") as (
            client,
            process,
        ):
            client.post("/index/upsert", json=document("a", [1, 0]))
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, **user)  # type: ignore[call-overload]
            for _ in range(3):
                for route, body in (
                    ("/index/upsert", document("b", [1, 0])),
                    ("/index/search", {"namespace": "notes", "embedding": [1, 0]}),
                ):
                    answer = client.post(route, json=body)
                    assert answer.status_code == 503, answer.text
                    assert int(answer.headers["retry-after"]) >= 1
                    assert answer.json()["code"] == "database_unavailable"
            assert client.get("/healthz").text == "ok"
            assert client.get("/readyz").status_code == 503
            subprocess.run(
                [*control, "-l", str(home / "postgres" / "log"), "start"],
                check=True,
                **user,  # type: ignore[call-overload]
            )
            wait_until(lambda: is_ready(client), process)
            assert client.post("/index/upsert", json=document("b", [1, 0])).status_code == 200
            assert client.get("/index/stats").json()["namespaces"] == {"notes": 2}


@pytest.mark.parametrize("killed", ["server", "backend"])
def test_a_forget_that_is_killed_is_whole_or_not_at_all(
    tmp_path: Path, external: str, killed: str
) -> None:
    everything = 20_000
    with psycopg.connect(external, autocommit=True) as admin:

        def one(statement: str) -> Any:
            return (admin.execute(statement).fetchone() or (None,))[0]

        def under_way() -> int | None:
            pid: int | None = one("""
                SELECT pid
                  FROM pg_stat_activity
                 WHERE datname = current_database()
                   AND query LIKE '%gone_chunks%'
                   AND state = 'active'
                   AND pid <> pg_backend_pid()
            """)
            return pid

        with serving(tmp_path, "--database-url", external) as (client, process):
            client.post("/index/upsert", json=document("seed", [1, 0]))
            admin.execute(f"""
                INSERT INTO indexd.documents (
                    namespace, doc_id, ingested_at, chunk_count, digest, meta
                )
                SELECT 'notes', 'd' || n, '2020-01-01', 1, '', '{{}}'
                  FROM generate_series(1, {everything}) AS n
            """)
            admin.execute("""
                INSERT INTO indexd.chunks (
                    namespace, doc_id, ordinal, ingested_at, embedding, chunk_id, tags, meta, text
                )
                SELECT namespace, doc_id, 0, ingested_at, '[1,0]', doc_id, '{}', '{}', ''
                  FROM indexd.documents
                 WHERE doc_id <> 'seed'
            """)
            admin.execute(f"UPDATE indexd.namespaces SET documents = {everything + 1}")
            with subprocess.Popen(
                [sys.executable, "-c", _FORGET, str(client.base_url)], stdout=subprocess.PIPE
            ) as asking:
                wait_until(lambda: under_way() is not None or asking.poll() is not None, process)
                if killed == "server":
                    process.kill()
                else:
                    admin.execute("SELECT pg_terminate_backend(%s)", (under_way() or 0,))
                answer = asking.communicate(timeout=60)[0]
        while under_way() is not None:
            time.sleep(0.1)
        left = one("SELECT count(*) FROM indexd.documents")
        gone = everything + 1 - left
        assert gone in (0, everything)
        assert one("SELECT count(*) FROM indexd.chunks") == left
        assert one("SELECT count(*) FROM indexd.forgotten_documents") == gone
        assert one("SELECT coalesce(sum(forgotten_count), 0) FROM indexd.forget_events") == gone
        assert one("SELECT documents FROM indexd.namespaces") == left
        if answer == b"200":
            assert gone == everything


_FORGET = """
import httpx, sys
body = {
    "filter": {"namespace": "notes", "older_than": "2021-01-01T00:00:00Z"},
    "reason": "test",
    "confirm": True,
}
try:
    print(httpx.post(sys.argv[1] + "/index/forget", json=body, timeout=60).status_code, end="")
except httpx.TransportError:
    print("gone", end="")
"""


def test_a_server_that_is_killed_while_it_builds_an_index_leaves_nothing_broken(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    data = tmp_path / "data"
    environ = {"INDEXD_INDEX_THRESHOLD": "4000", "INDEXD_KEEPER_INTERVAL_SECONDS": "0.1"}
    vectors = rng.normal(size=(4_000, 64)).round(3)
    lines = "\n".join(json.dumps(document(f"d{n}", v)) for n, v in enumerate(vectors))

    def index(client: httpx.Client) -> str:
        details = client.get("/index/stats").json()["details"]
        found: str = details["notes"]["index"] if details else "exact"
        return found

    with serving(tmp_path, "--data-dir", str(data), **environ) as (client, process):
        answer = client.post(
            "/index/bulk", content=lines, headers={"Content-Type": "application/x-ndjson"}
        )
        assert answer.json()["accepted"] == 4_000
        wait_until(lambda: index(client) == "building", process)
        time.sleep(0.3)
        process.kill()
        process.wait()
    with serving(tmp_path, "--data-dir", str(data), **environ) as (client, process):
        wait_until(lambda: index(client) == "hnsw", process)
        for n in (0, 1_999, 3_999):
            body = {"namespace": "notes", "embedding": vectors[n].tolist(), "k": 1}
            found = client.post("/index/search", json=body).json()["results"]
            assert [hit["doc_id"] for hit in found] == [f"d{n}"]
        assert client.get("/index/stats").json()["namespaces"] == {"notes": 4_000}
