"""OpenTelemetry spans, if it is installed (`indexd[otel]`) and INDEXD_TRACING is on.

There is a span per request and a span per statement. The standard OTEL_* variables say where they
are sent. A span holds the statement without its parameters, so it holds no text and no vector.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from indexd.db.pipeline import Answer, read_in_one_round_trip, read_within_transaction
from indexd.db.sessions import Connection, Session
from indexd.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer


def tracer(exporter: "SpanExporter | None" = None) -> "tuple[Tracer, Any]":
    """The tracer and its provider; the exporter is OTLP over HTTP. Raises ConfigurationError."""
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
    except ImportError as error:
        raise ConfigurationError(
            "tracing: on needs OpenTelemetry: pip install 'indexd[otel]'"
        ) from error
    # Merged last, so that OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override the default name.
    resource = Resource.create({"service.name": "indexd"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer("indexd"), provider


class RequestSpans(ASGIMiddleware):
    """Makes a span per request. It is a child of the caller's span if `traceparent` is sent."""

    scopes = (ScopeType.HTTP,)

    def __init__(self, tracer: "Tracer") -> None:
        self._tracer = tracer

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, Status, StatusCode

        carrier = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        method: str = scope["method"]  # type: ignore[typeddict-item]
        route = min(scope["route_handler"].paths)
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            context=extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
        ) as span:

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(Status(StatusCode.ERROR))
                await send(message)

            await next_app(scope, receive, watched)


def statement_name(text: str) -> str:
    """The name in the comment at the start of a statement, or else its first word."""
    named = re.match(r"\s*/\* (indexd:[a-z_.]+) \*/", text)
    return named[1] if named else text.split(None, 1)[0] if text.strip() else ""


def traced_cursor(tracer: "Tracer") -> type[AsyncCursor[TupleRow]]:
    """A cursor class that makes a span per statement.

    Its `read_in_one_round_trip` and `read_within_transaction` cover the statements that are sent
    without a cursor.
    """

    def span(query: object) -> AbstractContextManager[object]:
        text = query if isinstance(query, str) else type(query).__name__
        return tracer.start_as_current_span(
            f"SQL {statement_name(text)}",
            attributes={"db.system.name": "postgresql", "db.query.text": text},
        )

    class TracedCursor(AsyncCursor[TupleRow]):
        async def execute(self, query: Any, *arguments: Any, **named: Any) -> Self:
            with span(query):
                return await super().execute(query, *arguments, **named)

        @asynccontextmanager
        async def copy(self, statement: Any, *arguments: Any, **named: Any) -> AsyncIterator[Any]:
            with span(statement):
                async with super().copy(statement, *arguments, **named) as copy:
                    yield copy

        @staticmethod
        async def read_in_one_round_trip(
            session: Session,
            settings: Sequence[str],
            statement: str,
            values: Mapping[str, Any],
        ) -> list[TupleRow]:
            with span(statement):
                return await read_in_one_round_trip(session, settings, statement, values)

        @staticmethod
        async def read_within_transaction(
            session: Connection,
            settings: Sequence[str],
            statement: str,
            values: Mapping[str, Any],
        ) -> Answer:
            with span(statement):
                return await read_within_transaction(session, settings, statement, values)

    return TracedCursor
