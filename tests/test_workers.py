"""`indexd serve --workers N`: what holds for one process holds for several."""

import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from indexd.cli.serve import WORKER_ANSWERS_SECONDS
from tests.conftest import command
from tests.processes import workers
from tests.test_keys import refused_start
from tests.test_serve import external, serving

pytestmark = pytest.mark.slow

__all__ = ["external"]


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"INDEXD_EMBEDDER_PROVIDER": "openai"}, "embedder_provider"),
        ({"INDEXD_POLICIES": "/no/such/file.yaml"}, "/no/such/file.yaml"),
    ],
)
def test_a_mistake_in_the_settings_ends_the_start(
    external: str, environ: dict[str, str], named: str
) -> None:
    assert named in refused_start(external, environ | {"INDEXD_WORKERS": "2"})


def test_no_worker_outlives_a_server_that_was_killed(tmp_path: Path, external: str) -> None:
    with serving(tmp_path, "--workers", "2", "--database-url", external) as (client, process):
        started = workers(psutil.Process(process.pid))
        assert len(started) == 2
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(started, timeout=30)
        assert alive == []
        with pytest.raises(httpx.ConnectError):
            client.get("/healthz")


def test_a_worker_that_dies_is_replaced_at_once_and_the_new_one_leaves_the_policies_as_they_are(
    tmp_path: Path, external: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("namespaces: {mine: {half_life_seconds: 7}}")
    with serving(tmp_path, "--workers", "2", "--database-url", external) as (client, process):
        command(external, "policy", "apply", str(file))
        server = psutil.Process(process.pid)
        killed = workers(server)[0]
        killed.suspend()
        time.sleep(1)  # until it was asked whether it lives
        killed.kill()
        deadline = time.monotonic() + WORKER_ANSWERS_SECONDS / 2
        while killed in (now := workers(server)) or len(now) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(40):  # until the new one has come up, and after
            time.sleep(0.2)
            with suppress(httpx.TransportError):
                found = httpx.get(f"{client.base_url}/index/retention").json()
                assert list(found["configs"]) == ["mine"]
