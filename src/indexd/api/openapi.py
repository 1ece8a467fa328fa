"""The OpenAPI document's examples, and a page that shows the document without the internet."""

import dataclasses
from html import escape
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.enums import MediaType
from litestar.exceptions import NotFoundException
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import Example, OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.status_codes import HTTP_404_NOT_FOUND

UPSERT: dict[str, Any] = {
    "doc_id": "note-42",
    "namespace": "vault",
    "chunks": [
        {
            "id": "note-42#0",
            "text": "Backups are encrypted and kept for 90 days.",
            "meta": {
                "embedding": [0.12, 0.98],
                "source_path": "notes/example.md",
                "tags": ["project/infra"],
            },
        }
    ],
}
DELETE = {"doc_id": "note-42", "namespace": "vault"}
SEARCH: dict[str, Any] = {
    "query": {"text": "backup policy", "meta": {"embedding": [0.12, 0.98]}},
    "namespace": "vault",
    "k": 10,
    "filters": {"tags": ["project"]},
}
RELATED = {"doc_id": "note-42", "namespace": "vault", "k": 5}
FORGET: dict[str, Any] = {
    "filter": {"namespace": "chronik", "older_than": "2024-01-01T00:00:00Z"},
    "reason": "Manual cleanup after system migration",
    "dry_run": True,
}
RETENTION_PREVIEW: dict[str, Any] = {
    "namespace": "chronik",
    "policy": {"max_items": 10000, "purge_strategy": "oldest"},
}
FEEDBACK = {"doc_id": "note-42", "namespace": "vault", "useful": True}
EMBED = {"text": "Text to embed", "namespace": "osctx", "source_ref": "event-abc-123"}
DECAY_PREVIEW = {"namespace": "chronik", "half_life_seconds": 2592000}


def example(value: dict[str, Any]) -> list[Example]:
    return [Example(summary="As a client sends it", value=value)]


@dataclasses.dataclass
class NdjsonBody(Operation):
    """A body of one UPSERT per line, which no schema of a whole body can say."""

    def __post_init__(self) -> None:
        self.request_body = RequestBody(
            required=True,
            description="One upsert request per line; blank lines are skipped",
            content={
                "application/x-ndjson": OpenAPIMediaType(
                    schema=Schema(type="string"),  # type: ignore[arg-type]
                    examples={"lines": Example(value=msgspec.json.encode(UPSERT).decode() + "\n")},
                )
            },
        )


def other_pages(response: Response[Any]) -> Response[Any]:
    """Those that there are not are answered like any other unknown route, and not in HTML."""
    if response.status_code == HTTP_404_NOT_FOUND:
        raise NotFoundException
    return response


class PlainPage(OpenAPIRenderPlugin):
    """The document as one page of HTML: no script, nothing fetched from anywhere."""

    def __init__(self) -> None:
        super().__init__(path="/", media_type=MediaType.HTML)

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        info = openapi_schema["info"]
        operations = [
            _operation(path, method, operation)
            for path, methods in sorted(openapi_schema["paths"].items())
            for method, operation in methods.items()
        ]
        schemas = [
            f'<h3 id="{escape(name)}">{escape(name)}</h3>{_json(schema)}'
            for name, schema in sorted(openapi_schema["components"].get("schemas", {}).items())
        ]
        return (
            "<!doctype html><html lang=en><meta charset=utf-8>"
            f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>"
            f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
            f"<p>{escape(info['description'])} "
            'The same for programs: <a href="/schema/openapi.json">openapi.json</a>.</p>'
            f"{''.join(operations)}<h2>Schemas</h2>{''.join(schemas)}</html>"
        ).encode()


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f4f4f2;padding:.8rem;overflow:auto;font-size:.85rem}"
    "h2 code{font-size:1.1rem}"
)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>",
        f"<p>{escape(operation.get('description') or operation.get('summary') or '')}</p>",
    ]
    if parameters := operation.get("parameters"):
        parts.append(_json([{p["name"]: p["schema"]} for p in parameters]))
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<p>Body: <code>{escape(media_type)}</code> {_link(body['schema'])}</p>")
        examples = body.get("examples") or body["schema"].get("examples") or {}
        parts += [
            _json(shown.get("value", shown))
            for shown in (examples.values() if isinstance(examples, dict) else examples)
        ]
    for status, response in operation.get("responses", {}).items():
        links = " ".join(_link(c["schema"]) for c in response.get("content", {}).values())
        parts.append(f"<p>{escape(status)}: {links}</p>")
    return "".join(parts)


def _link(schema: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    return f'<a href="#{escape(name)}">{escape(name)}</a>' if name else ""


def _json(value: Any) -> str:
    if isinstance(value, str):
        return f"<pre>{escape(value)}</pre>"
    return f"<pre>{escape(msgspec.json.format(msgspec.json.encode(value)).decode())}</pre>"
