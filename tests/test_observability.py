"""What an operator sees: who was refused and why, and what of the server needs a look."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from indexd import gauges
from indexd.app import create_app
from indexd.settings import Settings
from indexd.telemetry.metrics import AUTH_FAILURES, EMBED_FAILURES, REJECTIONS, Metrics
from tests.conftest import Client, document, service_of
from tests.fake_embedders import running
from tests.processes import workers
from tests.test_serve import external, serving

__all__ = ["external"]

KEY = "ixd_0123abcd_" + "x" * 40
NOW = datetime(2026, 1, 31, tzinfo=UTC)


def logged(tmp_path: Path) -> list[dict[str, Any]]:
    lines = (tmp_path / "out").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def value(text: str, name: str) -> float:
    [found] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(found.split()[1])


@pytest.mark.parametrize("proxy", [None, "127.0.0.1"])
def test_a_line_says_who_called_and_why_a_key_was_refused(
    tmp_path: Path, external: str, proxy: str | None
) -> None:
    environ = {"INDEXD_AUTH": "keys"} | ({"FORWARDED_ALLOW_IPS": proxy} if proxy else {})
    with serving(tmp_path, "--database-url", external, **environ) as (client, _):
        forwarded = {"X-Forwarded-For": "192.0.2.9"}
        client.get("/index/stats", headers=forwarded)
        client.get("/index/stats", headers={"Authorization": f"Bearer {KEY}", **forwarded})
        client.get(f"/index/{KEY}/none", params={"text": "geheim"}, headers=forwarded)
        client.delete("/index/stats", headers=forwarded)
    lines = [line for line in logged(tmp_path) if line.get("path", "").startswith("/index/")]
    told = [(line["status"], line.get("refused"), line["client"]) for line in lines]
    address = "192.0.2.9" if proxy else "127.0.0.1"
    assert told == [
        (401, "missing", address),
        (401, "unknown", address),
        (404, None, address),
        (405, None, address),
    ]
    assert all(line["request_id"] for line in lines)
    output = (tmp_path / "out").read_text()
    assert KEY not in output
    assert KEY[4:] not in output
    assert "geheim" not in output


async def test_a_request_that_no_route_takes_is_counted_under_one_label(own_client: Client) -> None:
    for path in ("/none", "/none/other", "/index/none"):
        assert (await own_client.get(path)).status_code == 404
    text = (await own_client.get("/metrics")).text
    assert value(text, 'index_requests_total{method="GET",route="unknown",status="404"}') == 3
    assert "/none" not in text


async def test_counters_have_their_lines_before_the_first_event(own_client: Client) -> None:
    """`rate` and `increase` see no event with which the line itself comes."""
    await own_client.post("/index/upsert", json=document("a", [1, 0]))
    text = (await own_client.get("/metrics")).text
    for name, label, values in (
        ("index_embed_failures_total", "cause", EMBED_FAILURES),
        ("index_auth_failures_total", "reason", AUTH_FAILURES),
        ("index_requests_rejected_total", "reason", REJECTIONS),
    ):
        for one in values:
            assert value(text, f'{name}{{{label}="{one}"}}') == 0
    route = 'method="POST",route="/index/search",status="500"'
    assert value(text, f"index_requests_total{{{route}}}") == 0
    forgotten = 'index_items_forgotten_total{namespace="notes",reason="manual"}'
    assert value(text, forgotten) == 0
    assert value(text, 'index_retention_purges_total{namespace="notes",strategy="ttl"}') == 0


async def test_a_process_tells_its_memory_its_time_and_its_descriptors(own_client: Client) -> None:
    await asyncio.sleep(0.2)
    text = (await own_client.get("/metrics")).text
    process = psutil.Process()
    assert value(text, "process_resident_memory_bytes") > 2**20
    assert value(text, "process_cpu_seconds_total") > 0
    assert 0 < value(text, "process_open_fds") < value(text, "process_max_fds")
    assert value(text, "process_start_time_seconds") == pytest.approx(process.create_time())


def test_workers_tell_the_memory_of_all_of_them(tmp_path: Path, external: str) -> None:
    with serving(tmp_path, "--workers", "2", "--database-url", external) as (client, process):
        both = workers(psutil.Process(process.pid))
        for _ in range(100):
            text = client.get("/metrics").text
            least = sum(one.memory_info().rss for one in both) * 0.7
            if value(text, "process_resident_memory_bytes") > least:
                break
            time.sleep(0.1)
        assert value(text, "process_resident_memory_bytes") > least
        before = value(text, "process_cpu_seconds_total")
        assert before > 0
        assert value(client.get("/metrics").text, "process_cpu_seconds_total") >= before


async def test_the_state_of_the_embedder_is_a_metric(url: str) -> None:
    with running("ollama") as fake:
        settings = Settings(
            database_url=url,
            embedder_provider="ollama",
            embedder_base_url=fake.url,
            embedder_model="all-minilm",
        )
        app = create_app(settings)
        async with Client(app) as client:
            for mode, expected in (("works", 1), ("hang", 0)):
                fake.mode = mode  # type: ignore[assignment]
                embedder: Any = service_of(app).embedder
                if mode == "hang":
                    embedder._fail("it did not answer", lasting=True)
                gauges.sample_process(service_of(app))
                text = (await client.get("/metrics")).text
                assert value(text, 'index_embedder_up{provider="ollama"}') == expected
            fake.let_go.set()


async def test_without_an_embedder_there_is_none_that_could_be_down(own_client: Client) -> None:
    assert "index_embedder_up{" not in (await own_client.get("/metrics")).text


async def test_what_is_due_is_told_before_it_happens(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "policies.yaml"
    file.write_text("namespaces: {notes: {max_age_seconds: 86400}, many: {half_life_seconds: 1}}")
    changed = msgspec.structs.replace(
        settings, policies=str(file), index_threshold=3, keeper_interval_seconds=3600
    )
    late = NOW + timedelta(days=2)
    times = iter([NOW] * 4)
    app = create_app(changed, now=lambda: next(times, late))
    async with Client(app) as client:
        await asyncio.sleep(1)  # the first round of the keeper finds nothing
        for name in ("a", "b"):
            await client.post("/index/upsert", json=document(name, [1, 0], ingested_at=str(NOW)))
        await client.post("/index/upsert", json=document("c", *[[1, 0]] * 5, namespace="many"))
        times = iter([])
        await gauges.sample_database(service_of(app))
        text = (await client.get("/metrics")).text
        assert value(text, 'index_items_due{namespace="notes",reason="expired"}') == 2
        assert value(text, 'index_items_due{namespace="notes",reason="surplus"}') == 0
        assert value(text, 'index_items_due{namespace="many",reason="expired"}') == 0
        assert value(text, "index_hnsw_missing") == 1
        assert value(text, 'index_disk_free_bytes{holds="database"}') > 0
        free, size = (
            value(text, f'index_disk_{n}_bytes{{holds="database"}}') for n in ("free", "size")
        )
        assert free < size
        await client.post("/index/delete", json={"doc_id": "a", "namespace": "notes"})
        await client.post("/index/delete", json={"doc_id": "b", "namespace": "notes"})
        await gauges.sample_database(service_of(app))
        text = (await client.get("/metrics")).text
        assert value(text, 'index_items_due{namespace="notes",reason="expired"}') == 0


def test_due_documents_of_many_namespaces_are_shown_together() -> None:
    metrics = Metrics(1)
    metrics.show_due({"a": (1, 0), "b": (2, 3), "c": (4, 5)})
    text = metrics.render({}).decode()
    assert value(text, 'index_items_due{namespace="a",reason="expired"}') == 1
    assert value(text, 'index_items_due{namespace="_other",reason="expired"}') == 6
    assert value(text, 'index_items_due{namespace="_other",reason="surplus"}') == 8
    metrics.show_due({"b": (1, 1)})
    text = metrics.render({}).decode()
    assert value(text, 'index_items_due{namespace="a",reason="expired"}') == 0
    assert value(text, 'index_items_due{namespace="_other",reason="surplus"}') == 1


@pytest.mark.parametrize(
    "time_sent", ["yesterday", "2026-01-31", "2026-01-31T12:00:00", "31.01.2026", "", 5, "9999"]
)
async def test_a_time_is_refused_with_an_example_of_a_right_one(
    client: Client, time_sent: object
) -> None:
    for path, body, field in (
        ("/index/upsert", document("a", [1, 0], ingested_at=time_sent), "ingested_at"),
        ("/index/decay/preview", {"at": time_sent}, "at"),
        (
            "/index/search",
            {"query": "x", "filters": {"ingested_after": time_sent}},
            "filters.ingested_after",
        ),
        (
            "/index/forget",
            {"filter": {"older_than": time_sent}, "reason": "r", "dry_run": True},
            "filter.older_than",
        ),
    ):
        answer = await client.post(path, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"] == (
            f"{field}: expected an RFC 3339 time with an offset, such as 2026-01-31T12:00:00Z"
        )
