"""OpenTelemetry: a span per request, one per statement, and nothing of what is stored in them."""

from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from indexd.app import create_app
from indexd.db.pool import Database
from indexd.errors import InvalidRequest
from indexd.settings import Settings
from indexd.telemetry import tracing
from tests.conftest import Client, document

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    kept, made = InMemorySpanExporter(), tracing.tracer
    monkeypatch.setattr(tracing, "tracer", lambda: made(kept))
    return kept


@pytest.fixture
def traced(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, tracing="on")


def statements(exporter: InMemorySpanExporter, request: str) -> list[str]:
    """What the last request of this name told the database, in order."""
    spans = exporter.get_finished_spans()
    last = [span for span in spans if span.name == request][-1]
    children = [span for span in spans if span.parent == last.context]
    assert all(span.name.startswith("SQL ") for span in children)
    return [str((span.attributes or {})["db.query.text"]) for span in children]


async def test_a_request_is_a_span_and_its_statements_are_its_children(
    traced: Settings, exporter: InMemorySpanExporter
) -> None:
    async with Client(create_app(traced)) as client:
        sent = document("note", [0.76543219, 0.5], texts=["geheim"])
        await client.post("/index/upsert", json=sent, headers={"traceparent": PARENT})
        await client.post("/index/search", json={"namespace": "notes", "query": "geheim"})
    spans = exporter.get_finished_spans()
    [upsert] = [span for span in spans if span.name == "POST /index/upsert"]
    assert upsert.attributes is not None
    assert upsert.attributes["http.response.status_code"] == 200
    assert upsert.parent is not None
    assert f"{upsert.parent.trace_id:032x}" == PARENT.split("-")[1]
    told = statements(exporter, "POST /index/upsert")
    assert any("INSERT INTO indexd.chunks" in statement for statement in told)
    shown: Any = [span.to_json() for span in spans]
    assert not any("geheim" in text or "0.7654321" in text for text in shown)


async def test_a_search_in_one_round_trip_and_a_copy_are_spans_too(
    traced: Settings, exporter: InMemorySpanExporter
) -> None:
    wanted = {"namespace": "notes", "query": "", "embedding": [0.76543219, 0.5]}
    async with Client(create_app(traced)) as client:
        sent = document("note", *[[0.76543219, 0.5]] * 100)
        await client.post("/index/upsert", json=sent)
        await client.post("/index/search", json=wanted)  # what it saw is remembered
        await client.post("/index/search", json=wanted)
    assert any("COPY" in told for told in statements(exporter, "POST /index/upsert"))
    [search] = statements(exporter, "POST /index/search")
    assert search.startswith("/* indexd:search.scan_shortcut */")
    names = {span.name for span in exporter.get_finished_spans()}
    assert "SQL indexd:search.scan_shortcut" in names
    assert not any("0.7654" in span.to_json() for span in exporter.get_finished_spans())


async def test_a_round_trip_that_fails_is_a_failed_span(
    url: str, exporter: InMemorySpanExporter
) -> None:
    made, provider = tracing.tracer()
    async with Database(url, Settings(), cursor=tracing.traced_cursor(made)) as database:
        with pytest.raises(InvalidRequest):
            await database.read_once([], "SELECT %(n)s::int / 0", {"n": 3})
    provider.shutdown()
    [span] = exporter.get_finished_spans()
    assert (span.name, span.status.is_ok) == ("SQL SELECT", False)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "indexd"),
        ({"OTEL_SERVICE_NAME": "memory"}, "memory"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=kept,team=ours"}, "kept"),
    ],
)
def test_the_service_is_called_indexd_unless_the_environment_says_otherwise(
    environ: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    _, provider = tracing.tracer(InMemorySpanExporter())
    assert provider.resource.attributes["service.name"] == name
    assert provider.resource.attributes["telemetry.sdk.name"] == "opentelemetry"
    provider.shutdown()
