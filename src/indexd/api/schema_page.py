"""The OpenAPI document as one page of HTML: no script, and nothing fetched from anywhere."""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import msgspec

Object = dict[str, Any]

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--accent:#0a6b4f}
@media(prefers-color-scheme:dark){:root{--accent:#6fcfae}}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:0 auto;padding:1rem}
h1{margin-bottom:.2rem}
h2{margin-top:3rem;border-bottom:2px solid var(--accent)}
h3{margin-top:2.5rem;font-size:1.15rem;overflow-wrap:anywhere}
h4{margin:1.2rem 0 .3rem;font-size:.95rem}
a{color:var(--accent)}
code,pre{font:.88em/1.45 ui-monospace,monospace}
code{overflow-wrap:anywhere}
pre{background:var(--soft);border:1px solid var(--line);padding:.7rem;overflow:auto}
p{margin:.4rem 0}
.method{display:inline-block;min-width:3.6em;color:var(--accent);font-weight:700}
.scope{border:1px solid var(--line);border-radius:1em;padding:0 .6em;font-size:.8rem}
.required{color:#b3400f;font-size:.8rem;white-space:nowrap}
@media(prefers-color-scheme:dark){.required{color:#f2a27c}}
nav td:first-child{white-space:nowrap;width:21rem}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;
border-top:1px solid var(--line)}
th{font-size:.8rem}
td p{margin:0}
td.name,td:last-child>code{white-space:nowrap}
@media(max-width:44rem){
nav td:first-child{white-space:normal;width:auto}
thead{display:none}
tr{display:block;border-top:1px solid var(--line);padding:.4rem 0}
td{display:block;border:0;padding:.05rem 0}
td.name code{font-weight:700}
td.default::before{content:'default: '}
td.default:has(.required)::before{content:''}
td.present::before{content:'present: '}
}
"""

_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page: it may apply its own style and nothing else."""


def rendered(document: Object) -> bytes:
    info, groups = document["info"], _by_task(document)
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(info['title'])}: the HTTP API</title><style>{_STYLE}</style></head>",
            f"<body><h1>{escape(info['title'])} {escape(info['version'])}</h1>",
            _text(info["description"]),
            '<p>For programs: <a href="/schema/openapi.json">openapi.json</a>. ',
            'More below: <a href="#errors">error codes</a>, <a href="#types">types</a>.</p>',
            _index(document, groups),
            *(_task(document, task, operations) for task, operations in groups.items()),
            _errors(groups),
            _types(document),
            "</body></html>",
        ]
    ).encode()


Operations = list[tuple[str, str, Object]]
"""Method, path and operation."""


def _by_task(document: Object) -> dict[str, Operations]:
    groups: dict[str, Operations] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]].append((method.upper(), path, operation))
    return groups


def _index(document: Object, groups: dict[str, Operations]) -> str:
    told = {tag["name"]: tag["description"] for tag in document["tags"]}
    parts = ["<nav>"]
    for task, operations in groups.items():
        parts.append(
            f'<h4><a href="#task-{escape(task)}">{escape(task)}</a>: {escape(told[task])}</h4>'
        )
        parts.append("<table>")
        for method, path, operation in operations:
            parts.append(
                f"<tr><td><code>{_method(method)} "
                f'<a href="#{escape(operation["operationId"])}">{escape(path)}</a></code></td>'
                f"<td>{_inline(operation['summary'])}</td></tr>"
            )
        parts.append("</table>")
    return "".join([*parts, "</nav>"])


def _task(document: Object, task: str, operations: Operations) -> str:
    return f'<h2 id="task-{escape(task)}">{escape(task)}</h2>' + "".join(
        _operation(document, method, path, operation) for method, path, operation in operations
    )


def _operation(document: Object, method: str, path: str, operation: Object) -> str:
    scopes = [scope for way in operation["security"] for names in way.values() for scope in names]
    parts = [
        f'<h3 id="{escape(operation["operationId"])}">',
        f"<code>{_method(method)} {escape(path)}</code> ",
        f'<span class="scope">{escape(" ".join(scopes) or "open")}</span></h3>',
        f"<p>{_inline(operation['summary'])}</p>",
        _text(operation["description"]),
    ]
    if parameters := operation.get("parameters"):
        rows = [(one["name"], one["required"], {**one, **one["schema"]}) for one in parameters]
        parts += ["<h4>Query parameters</h4>", _fields(rows, sent=True)]
    if body := operation.get("requestBody"):
        for media_type, content in body["content"].items():
            parts.append(f"<h4>Body, <code>{escape(media_type)}</code></h4>")
            parts.append(_text(body.get("description", "")))
            parts.append(_body(document, content["schema"], sent=True))
    for sample in operation["x-codeSamples"]:
        parts += ["<h4>Request to copy</h4>", f"<pre>{escape(sample['source'])}</pre>"]
    for media_type, content in operation["responses"]["200"].get("content", {}).items():
        parts.append(f"<h4>Answer, <code>{escape(media_type)}</code></h4>")
        parts.append(_text(operation["responses"]["200"]["description"]))
        parts.append(_body(document, content["schema"], sent=False))
    parts.append(_failures(operation))
    return "".join(parts)


def _body(document: Object, schema: Object, *, sent: bool) -> str:
    name = _name(schema)
    return _struct(document["components"]["schemas"][name], sent=sent) if name else ""


def _struct(schema: Object, *, sent: bool) -> str:
    required = schema.get("required", [])
    return _fields(
        (
            (name, name in required, described)
            for name, described in schema.get("properties", {}).items()
        ),
        sent=sent,
    )


def _fields(rows: Iterable[tuple[str, bool, Object]], *, sent: bool) -> str:
    """A table: name, type, default (in what a client sends) or presence, meaning with limits."""
    return _table(
        ("Field", "Type", "Default" if sent else "Present", "Meaning"),
        (
            (
                f"<code>{escape(name)}</code>",
                _type(schema),
                _default(required, schema) if sent else "always" if required else "sometimes",
                _meaning(schema),
            )
            for name, required, schema in rows
        ),
        classes=("name", "", "default" if sent else "present", ""),
    )


def _default(required: bool, schema: Object) -> str:
    if required:
        return '<span class="required">required</span>'
    return f"<code>{escape(_json(schema['default']))}</code>" if "default" in schema else ""


def _failures(operation: Object) -> str:
    rows = []
    for status, response in operation["responses"].items():
        if status == "200":
            continue
        codes = " ".join(
            f'<a href="#code-{escape(code)}"><code>{escape(code)}</code></a>'
            for code in response.get("x-codes", ())
        )
        meaning = response["description"].partition("\n")[0]
        if "x-codes" not in response:
            codes = "text"
        headers = ", ".join(
            f"<code>{escape(name)}</code>"
            for name in response.get("headers", ())
            if name != "X-Request-ID"
        )
        rows.append((f"<b>{escape(status)}</b>", codes, _inline(meaning), headers))
    if not rows:
        return ""
    return "<h4>Other answers</h4>" + _table(("Status", "Codes", "Meaning", "Headers"), rows)


def _errors(groups: dict[str, Operations]) -> str:
    """Every code that a route can answer with, and its meaning."""
    found: dict[tuple[str, str], str] = {}
    for operations in groups.values():
        for _, _, operation in operations:
            for status, response in operation["responses"].items():
                for code, text in _CODE.findall(response["description"]):
                    found[status, code] = text
    rows = [
        (
            f"<b>{escape(status)}</b>",
            f'<code id="code-{escape(code)}">{escape(code)}</code>',
            _inline(text),
        )
        for (status, code), text in sorted(found.items())
    ]
    return '<h2 id="errors">Error codes</h2>' + _table(("Status", "Code", "Meaning"), rows)


_CODE = re.compile(r"^- `(\w+)`: (.+)$", re.MULTILINE)


def _types(document: Object) -> str:
    parts = ['<h2 id="types">Types</h2>']
    sent = _sent(document)
    for name, schema in document["components"]["schemas"].items():
        parts.append(f'<h3 id="type-{escape(name)}"><code>{escape(name)}</code></h3>')
        parts.append(_text(schema.get("description", "")))
        parts.append(_struct(schema, sent=name in sent))
    return "".join(parts)


def _sent(document: Object) -> set[str]:
    """The names of the types in what clients send."""
    schemas = document["components"]["schemas"]
    bodies = [
        operation.get("requestBody", {})
        for methods in document["paths"].values()
        for operation in methods.values()
    ]
    found: set[str] = set()
    left = [*_REFERENCE.findall(_json(bodies)), "UpsertIn"]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _REFERENCE.findall(_json(schemas[name]))
    return found


_REFERENCE = re.compile(r'"#/components/schemas/(\w+)"')


def _type(schema: Object) -> str:
    """A type in words, with links to the types of the page."""
    if name := _name(schema):
        return f'<a href="#type-{escape(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(_json(one))}</code>" for one in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        inside = _type(schema.get("items", {}))
        return f"array of {inside}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    form = {"date-time": "time", "uuid": "UUID"}.get(schema.get("format", ""))
    return form or escape(str(kind))


_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matches {}",
}


def _meaning(schema: Object) -> str:
    limits = "; ".join(
        f"{told.format(_json(one[key]))}"
        for one in (schema, *schema.get("anyOf", ()))
        for key, told in _LIMITS.items()
        if key in one
    )
    parts = [f"<p>{_inline(schema.get('description', ''))}</p>"]
    if limits:
        parts.append(f"<p><small>Limits: {escape(limits)}</small></p>")
    shown = [schema["example"]] if "example" in schema else schema.get("examples", [])
    if shown:
        parts.append(f"<p><small>Example: <code>{escape(_json(shown[0]))}</code></small></p>")
    return "".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], classes: Sequence[str] = ()) -> str:
    """A table of cells that are HTML; `classes` are those of the columns."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    starts = [f'<td class="{name}">' if name else "<td>" for name in classes or [""] * len(head)]
    lines = "".join(
        "<tr>"
        + "".join(
            f"{start}{cell}</td>" if cell else "<td></td>"
            for start, cell in zip(starts, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"


def _name(schema: Object) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _method(method: str) -> str:
    return f'<span class="method">{escape(method)}</span>'


def _text(text: str) -> str:
    """Paragraphs of a description."""
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n") if part)


def _inline(text: str) -> str:
    """A line with its `code`."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _json(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
