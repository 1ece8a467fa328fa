"""OpenTelemetry: a span per request, one per statement, and nothing of what is stored in them."""

from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from indexd import tracing
from indexd.app import create_app
from indexd.settings import Settings
from tests.conftest import Client, document

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    kept, made = InMemorySpanExporter(), tracing.tracer
    monkeypatch.setattr(tracing, "tracer", lambda: made(kept))
    return kept


async def test_a_request_is_a_span_and_its_statements_are_its_children(
    settings: Settings, exporter: InMemorySpanExporter
) -> None:
    traced = msgspec.structs.replace(settings, tracing="on")
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
    statements = [
        span for span in spans if span.parent and span.parent.span_id == upsert.context.span_id
    ]
    assert any("SQL" in span.name for span in statements)
    assert all(span.context.trace_id == upsert.context.trace_id for span in statements)
    shown: Any = [span.to_json() for span in spans]
    assert not any("geheim" in text or "0.7654" in text for text in shown)
