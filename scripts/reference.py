"""Write docs/reference from the program: `make docs`. tests/test_reference.py finds stale pages.

What the program says of itself (help texts, defaults, ranges, docstrings) stands there and nowhere
else. What it does not say is in the tables below: groups, units and examples of settings, and one
example for each command. tests/test_reference.py tries every example.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import yaml
from litestar import Litestar
from litestar.exceptions import MethodNotAllowedException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from prometheus_client.metrics import MetricWrapperBase

from indexd import errors
from indexd import settings as program_settings
from indexd.api import openapi, problems
from indexd.app import create_app
from indexd.cli import commands
from indexd.cli.settings import table as settings_table
from indexd.errors import ConfigurationError, IndexdError
from indexd.settings import Settings
from indexd.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
WIDTH = 96
"""Columns of a help text."""

MADE = "<!-- Written by `make docs` from the program; edit that, not this page. -->"

NOWHERE = "postgresql://nobody@127.0.0.1:1/none"
"""An application is made to be asked for its routes; it never connects."""


# Settings


class Group(NamedTuple):
    """Settings whose names begin with one of these words."""

    title: str
    about: str
    prefixes: tuple[str, ...]


GROUPS = (
    Group("Address and processes", "", ("bind_addr", "workers", "shutdown")),
    Group("Database", "", ("database", "data_dir", "pool", "statement", "lock")),
    Group("Access", "", ("auth", "allowed_hosts", "admin", "metrics_public")),
    Group(
        "Limits and overload",
        "All limits hold per process: with `--workers N` each worker has its own.",
        ("rate", "queue", "max_", "overload", "caller_share", "body_timeout", "min_body"),
    ),
    Group("Latency budget", "", ("budget",)),
    Group("Search and HNSW indexes", "", ("search", "index", "hnsw", "keeper")),
    Group("Forgetting", "", ("policies", "forget", "relevance", "retention")),
    Group("Embedder", "", ("embedder",)),
    Group("Logs, metrics, tracing", "", ("log", "metrics", "tracing")),
)
OTHER = Group("Other", "", ("",))

SUFFIXES = {
    "_seconds": "seconds",
    "_ms": "milliseconds",
    "_bytes": "bytes",
    "_chars": "characters",
    "_share": "share, 0 to 1",
    "_per_minute": "per minute",
    "_timeout": "seconds",
}

UNITS = {
    "budget_ms": "milliseconds",
    "embedder_batch_size": "texts",
    "embedder_cache_size": "texts",
    "embedder_concurrency": "batches",
    "embedder_dim": "numbers",
    "embedder_threads": "threads",
    "hnsw_ef_construction": "candidates",
    "hnsw_m": "links",
    "index_limit": "indexes",
    "index_threshold": "chunks",
    "max_bodies": "bodies",
    "max_chunks": "chunks",
    "max_filter_values": "values",
    "max_k": "results",
    "max_meta_values": "values",
    "max_requests": "requests",
    "max_tag_segments": "segments",
    "max_tags": "tags",
    "min_body_bytes_per_second": "bytes per second",
    "metrics_namespaces": "namespaces",
    "pool_size": "connections",
    "queue_length": "requests",
    "rate_limit": "requests per minute",
    "relevance_limit": "documents",
    "search_ef": "candidates",
    "search_max_scan_tuples": "rows",
    "workers": "processes",
}

EXAMPLES: Mapping[str, str] = {
    "admin_key_file": "/etc/indexd/admin_key",
    "allowed_hosts": "memory.example,api:8080",
    "bind_addr": "0.0.0.0:8080",
    "caller_share": "0.25",
    "data_dir": "/var/lib/indexd",
    "database_direct_url": "postgresql://indexd@db:5432/indexd",
    "database_password_file": "/run/secrets/database_password",
    "database_url": "postgresql://indexd@db/indexd",
    "embedder_api_key": "sk-...",
    "embedder_api_key_file": "/run/secrets/embedder_key",
    "embedder_base_url": "http://ollama:11434",
    "embedder_dim": "384",
    "embedder_model": "all-minilm",
    "embedder_passage_prefix": "passage: ",
    "embedder_provider": "ollama",
    "embedder_query_prefix": "query: ",
    "policies": "/etc/indexd/retention.yaml",
    "rate_limit": "600",
    "search_ef": "200",
    "workers": "4",
}
"""Of settings for which neither another choice nor twice the default is a good example."""


def settings_page() -> str:
    rows = {row.name: row for row in program_settings.rows()}
    types = _types(Settings)
    lines = [
        *_head(
            "Settings",
            "`indexd settings` prints the list. A setting `max_k` is `INDEXD_MAX_K` in the "
            "environment and `max_k:` in the YAML file that `INDEXD_CONFIG` names. The environment "
            "wins over the file, an option of the command line over both. An empty variable counts "
            "as not set; an unknown name is refused.",
        ),
        "<!-- settings -->",
        *settings_table(),
        "<!-- end of settings -->",
        "",
    ]
    for group, names in _grouped(rows):
        lines += [f"## {group.title}", "", *([group.about, ""] if group.about else [])]
        for name in names:
            row = rows[name]
            lines += [
                f"### {name}",
                "",
                f"{row.help}.",
                "",
                "| variable | default | values | unit | example |",
                "|---|---|---|---|---|",
                _row(
                    f"`{row.variable}`",
                    "not set" if row.default is None else f"`{_shown(row.default)}`",
                    _values(types[name]),
                    unit(name, types[name]) or "-",
                    f"`{row.variable}={example(name, row.default, types[name])}`",
                ),
                "",
            ]
    return _page(lines)


def _grouped(names: Iterable[str]) -> Iterator[tuple[Group, list[str]]]:
    left = list(names)
    for group in (*GROUPS, OTHER):
        members = [name for name in left if name.startswith(group.prefixes)]
        left = [name for name in left if name not in members]
        if members:
            yield group, members


def unit(name: str, kind: msgspec.inspect.Type) -> str | None:
    """None where there is nothing to count."""
    if name in UNITS:
        return UNITS[name]
    if not _is_number(kind):
        return None
    return next((unit for suffix, unit in SUFFIXES.items() if name.endswith(suffix)), None)


def example(name: str, default: Any, kind: msgspec.inspect.Type) -> str:
    """A value that is taken, and that is not the default."""
    if name in EXAMPLES:
        return EXAMPLES[name]
    if isinstance(default, bool):
        return str(not default).lower()
    if isinstance(default, int | float):
        return _shown(default * 2)
    choices = [choice for one in _plain(kind) for choice in getattr(one, "values", ())]
    return next((choice for choice in reversed(choices) if choice != default), "...")


def _types(struct: type[msgspec.Struct]) -> dict[str, msgspec.inspect.Type]:
    found = msgspec.inspect.type_info(struct)
    return {field.name: field.type for field in found.fields}  # type: ignore[attr-defined]


def _plain(kind: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    """The types that a value may have, but for None."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _plain(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return [one for inner in kind.types for one in _plain(inner)]
    return [] if isinstance(kind, msgspec.inspect.NoneType) else [kind]


def _is_number(kind: msgspec.inspect.Type) -> bool:
    numbers = (msgspec.inspect.IntType, msgspec.inspect.FloatType)
    return any(isinstance(one, numbers) for one in _plain(kind))


def _values(kind: msgspec.inspect.Type) -> str:
    """Which ones are taken, in words."""
    match _plain(kind):
        case [msgspec.inspect.BoolType()]:
            return "`true`, `false`"
        case [msgspec.inspect.LiteralType(values=values)]:
            return ", ".join(f"`{value}`" for value in values)
        case [msgspec.inspect.IntType() | msgspec.inspect.FloatType() as number]:
            whole = "integer" if isinstance(number, msgspec.inspect.IntType) else "number"
            bounds = [
                f"{words} {_shown(bound)}"
                for words, bound in (
                    ("at least", number.ge),
                    ("above", number.gt),
                    ("at most", number.le),
                    ("below", number.lt),
                )
                if bound is not None
            ]
            return ", ".join([whole, *bounds])
    return "text"


def _shown(value: Any) -> str:
    """A number without a needless fraction."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


# Command line

COMMANDS: Mapping[str, str] = {
    "backup": "indexd backup memory.backup",
    "db check": "indexd db check --database-url postgresql://indexd@db/indexd",
    "db current": "indexd db current",
    "db downgrade": "indexd db downgrade 0014",
    "db grant": "indexd db grant indexd_service",
    "db sql": "indexd db sql > migrations.sql",
    "db upgrade": "indexd db upgrade --database-url postgresql://indexd@db/indexd",
    "doctor": "indexd doctor",
    "index auto": "indexd index auto vault",
    "index build": "indexd index build vault",
    "index drop": "indexd index drop vault",
    "index status": "indexd index status",
    "keys create": "indexd keys create agent --scope write --namespace notes --expires 90d",
    "keys list": "indexd keys list",
    "keys revoke": "indexd keys revoke agent",
    "policy apply": "indexd policy apply retention.yaml",
    "policy check": "indexd policy check retention.yaml",
    "policy show": "indexd policy show",
    "psql": "indexd psql -c 'SELECT namespace, documents FROM indexd.namespaces'",
    "push": "indexd push embeddings.parquet --namespace chronik",
    "reembed": "indexd reembed notes --dry-run",
    "restore": "indexd restore memory.backup --replace",
    "search": "indexd search 'encrypted backups' --namespace notes --explain",
    "serve": "indexd serve --port 8080 --workers 2",
    "settings": "indexd settings",
}


class Command(NamedTuple):
    name: str
    command: click.Command


def all_commands(group: click.Command = commands, before: str = "") -> list[Command]:
    """Those that do something, by name; groups only hold them."""
    if not isinstance(group, click.Group):
        return [Command(before.strip(), group)]
    return [
        found
        for name, command in _members(group)
        for found in all_commands(command, f"{before} {name}")
    ]


def _members(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in sorted(group.list_commands(context)):
        if command := group.get_command(context, name):
            yield name, command


def cli_page() -> str:
    found = all_commands()
    lines = [
        *_head(
            "Command line",
            "`indexd COMMAND --help` prints the same. Options that name a database are the same "
            "everywhere: without them a command uses the settings, and without a database there it "
            "uses the PostgreSQL that comes along. A mistake is one line on standard error and "
            "exit code 1; a wrong option is exit code 2.",
        ),
        "| command | what it does |",
        "|---|---|",
        *(
            _row(f"[`indexd {one.name}`](#indexd-{one.name.replace(' ', '-')})", _first(one))
            for one in found
        ),
        "",
    ]
    for one in found:
        context = click.Context(
            one.command,
            info_name=f"indexd {one.name}",
            terminal_width=WIDTH,
            max_content_width=WIDTH,
            help_option_names=["-h", "--help"],
        )
        lines += [f"## indexd {one.name}", "", "```text", one.command.get_help(context), "```", ""]
        if shown := COMMANDS.get(one.name):
            lines += ["```console", f"$ {shown}", "```", ""]
    return _page(lines)


def _first(one: Command) -> str:
    """The first sentence of its help."""
    return one.command.get_short_help_str(limit=1_000)


# Metrics


COUNTED_WHEN_ASKED = {"index_items_total": ("namespace",)}
"""Labels of metrics that no registry holds."""


def metrics_page() -> str:
    metrics = Metrics()
    labels = {
        collector._name: collector._labelnames
        for collector in metrics.registry._collector_to_names
        if isinstance(collector, MetricWrapperBase)
    }
    alerts = _alerts()
    lines = [
        *_head(
            "Metrics",
            "`GET /metrics` answers them in Prometheus' text format. A counter begins at 0 with "
            "its process; a label `namespace` has at most `INDEXD_METRICS_NAMESPACES` values, "
            "the rest is `_other`. The alerts are those of deploy/alerts.yml. "
            "[Operations](../operations.md#metrics) says what to know about several servers.",
        ),
        "| metric | kind | labels | what it counts | alerts |",
        "|---|---|---|---|---|",
    ]
    for name, kind, help_text in families(metrics):
        base = name.removesuffix("_total")
        # What is counted when it is asked for is in no registry.
        names = labels.get(base, labels.get(name, COUNTED_WHEN_ASKED.get(name, ())))
        lines.append(
            _row(
                f"`{name}`",
                kind,
                ", ".join(f"`{one}`" for one in names) or "-",
                help_text,
                ", ".join(alert for alert, speaks_of in alerts if speaks_of(base)) or "-",
            )
        )
    return _page(lines)


def families(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Name, kind and help of each family, by name, as /metrics has them."""
    helps, kinds = dict[str, str](), dict[str, str]()
    for line in metrics.render({"n": 1}, read_only=False).decode().splitlines():
        if line.startswith("# HELP "):
            name, _, text = line.removeprefix("# HELP ").partition(" ")
            helps[name] = text
        elif line.startswith("# TYPE "):
            name, _, kind = line.removeprefix("# TYPE ").partition(" ")
            kinds[name] = kind
    return [(name, kinds[name], helps[name]) for name in sorted(kinds)]


def _alerts() -> list[tuple[str, Callable[[str], bool]]]:
    """By name, and whether one speaks of a metric, given without the end that its samples have."""
    rules = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())
    named = [
        (one["alert"], set(re.findall(r"\bindex_\w+", one["expr"])))
        for group in rules["groups"]
        for one in group["rules"]
    ]
    ends = ("", "_total", "_bucket", "_sum", "_count")
    return [
        (alert, lambda base, names=names: any(base + end in names for end in ends))  # type: ignore[misc]
        for alert, names in named
    ]


# Errors


class Failure(NamedTuple):
    status: int
    code: str
    meaning: str
    headers: str


def failures() -> list[Failure]:
    """Every code that an answer can have: of the program's errors, and of the routing."""
    found = [
        Failure(
            error.status,
            error.code,
            inspect.cleandoc(error.__doc__ or "").splitlines()[0],
            ", ".join(sorted(_headers(error))),
        )
        for error in vars(errors).values()
        if inspect.isclass(error)
        and issubclass(error, IndexdError)
        # Stops a start or a command; no request is answered with it.
        and not issubclass(error, ConfigurationError)
    ]
    for routing in (NotFoundException(), MethodNotAllowedException()):
        answer = problems.answer(None, routing)  # type: ignore[arg-type]  # it looks at none
        headers = "Allow" if answer.status_code == 405 else ""
        found.append(
            Failure(
                answer.status_code or 500, answer.content.code, _sentence(answer.content), headers
            )
        )
    merged: dict[tuple[int, str], Failure] = {}
    for one in sorted(found, key=lambda failure: (failure.status, failure.code)):
        before = merged.get((one.status, one.code))
        if before and before.meaning != one.meaning:
            one = one._replace(meaning=f"{before.meaning} {one.meaning}")
        merged[one.status, one.code] = one
    return list(merged.values())


def _sentence(body: Any) -> str:
    text = f"{body.error[0].upper()}{body.error[1:]}."
    return f"{text} {body.hint[0].upper()}{body.hint[1:]}." if body.hint else text


def _headers(error: type[IndexdError]) -> set[str]:
    if error.headers:
        return set(error.headers)
    # Those that are made of an argument.
    return (
        {"Retry-After"} if "retry_after_seconds" in inspect.signature(error).parameters else set()
    )


def errors_page() -> str:
    lines = [
        *_head(
            "Errors",
            "A request that fails is answered with its status and a JSON object: `error` is one "
            "sentence that says what is wrong and what was expected, `code` is one of the words "
            "below, for programs; `hint` and `details` are there where they help. No message holds "
            "a text, a vector or a key. What has `Retry-After` may be sent again after as many "
            "seconds. A line of a bulk that fails has the same codes.",
        ),
        "| status | code | meaning | headers |",
        "|---|---|---|---|",
        *(
            _row(str(one.status), f"`{one.code}`", one.meaning, one.headers or "-")
            for one in failures()
        ),
    ]
    return _page(lines)


# Routes


class Operation(NamedTuple):
    method: str
    path: str
    handler: HTTPRouteHandler
    described: dict[str, Any]


def application() -> Litestar:
    return create_app(Settings(database_url=NOWHERE))


def operations(app: Litestar) -> list[Operation]:
    """Every route but the pages of /schema, in the order of their paths."""
    paths = openapi.document(app)["paths"]
    return sorted(
        (
            Operation(method, route.path, handler, paths[route.path][method.lower()])
            for route in app.routes
            if isinstance(route, HTTPRoute) and not route.path.startswith("/schema")
            for handler in route.route_handlers
            for method in handler.http_methods
            if method not in ("OPTIONS", "HEAD")
        ),
        key=lambda one: (one.path, one.method),
    )


def routes_page() -> str:
    app = application()
    found = operations(app)
    schemas = openapi.document(app)["components"]["schemas"]
    lines = [
        *_head(
            "Routes",
            "`/schema` shows the same with examples, `/schema/openapi.json` for programs. "
            "[Operations](../operations.md#who-may-do-what) says what a scope is, and what a key "
            "meets in namespaces it is not for. [Errors](errors.md) lists the codes.",
        ),
        "| route | scope | other namespaces | what it does |",
        "|---|---|---|---|",
        *(
            _row(
                f"[`{one.method} {one.path}`](#{_anchor(one)})",
                one.handler.opt.get("scope", "admin"),
                one.handler.opt.get("others", "-"),
                summary(one),
            )
            for one in found
        ),
        "",
    ]
    used: list[str] = []
    for one in found:
        lines += [f"## {one.method} {one.path}", "", summary(one), "", one.described["description"]]
        lines += [""]
        lines += _parameters(one.described.get("parameters", ()))
        for media_type, content in one.described.get("requestBody", {}).get("content", {}).items():
            name = _reference(content["schema"])
            lines += [f"Body: `{media_type}`" + (f", [{name}](#{name.lower()})" if name else "")]
            lines += ["", *_example(content)]
            used += [name] if name else []
        for content in one.described["responses"]["200"].get("content", {}).values():
            if name := _reference(content["schema"]):
                lines += [f"Answer: [{name}](#{name.lower()})", ""]
                used += [name]
    lines += ["## Bodies", ""]
    for name in _reachable(used, schemas):
        lines += _fields(name, schemas[name])
    return _page(lines)


def summary(one: Operation) -> str:
    """What the document says that it does, in one sentence."""
    return str(one.described["summary"])


def _example(content: dict[str, Any]) -> list[str]:
    """A body to copy, where the document has one."""
    given = content["schema"].get("examples") or [
        one["value"] for one in content.get("examples", {}).values()
    ]
    if not given:
        return []
    first = given[0]["value"] if isinstance(given[0], dict) and "value" in given[0] else given[0]
    text = first if isinstance(first, str) else msgspec.json.encode(first).decode()
    if not isinstance(first, str):
        text = msgspec.json.format(text)
    return ["```json", text.strip(), "```", ""]


def _anchor(one: Operation) -> str:
    return f"{one.method} {one.path}".lower().replace("/", "").replace(" ", "-")


def _parameters(given: Sequence[dict[str, Any]]) -> list[str]:
    if not given:
        return []
    return [
        "| parameter | type | default | meaning |",
        "|---|---|---|---|",
        *(
            _row(
                f"`{one['name']}`",
                _type(one["schema"]),
                "required" if one.get("required") else _default(one["schema"]),
                one.get("description") or one["schema"].get("description") or "",
            )
            for one in given
        ),
        "",
    ]


def _fields(name: str, schema: dict[str, Any]) -> list[str]:
    required = schema.get("required", ())
    about = schema.get("description", "")
    return [
        f"### {name}",
        "",
        *([about, ""] if about else []),
        "| field | type | default | meaning |",
        "|---|---|---|---|",
        *(
            _row(
                f"`{field}`",
                _type(described),
                "required" if field in required else _default(described),
                described.get("description", ""),
            )
            for field, described in schema.get("properties", {}).items()
        ),
        "",
    ]


def _default(schema: dict[str, Any]) -> str:
    if schema.get("default") is None:
        return "-"
    return f"`{msgspec.json.encode(schema['default']).decode()}`"


def _type(schema: dict[str, Any]) -> str:
    """A type as a person says it; others of this page are links."""
    if name := _reference(schema):
        return f"[{name}](#{name.lower()})"
    if inner := schema.get("oneOf") or schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_type(one) for one in inner if one.get("type") != "null"))
    if choices := schema.get("enum"):
        return " or ".join(f"`{choice}`" for choice in choices if choice is not None)
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any")
    if isinstance(kind, list):
        kind = " or ".join(one for one in kind if one != "null")
    if kind == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)


def _reference(schema: dict[str, Any]) -> str:
    """The name of the component that a schema stands for, if it is one."""
    whole = [schema, *schema.get("allOf", ())]
    return next((one["$ref"].rpartition("/")[2] for one in whole if "$ref" in one), "")


def _reachable(names: Iterable[str], schemas: dict[str, Any]) -> list[str]:
    """These components and those their fields refer to, by name."""
    found, left = set[str](), list(names)
    while left:
        name = left.pop()
        if name in found or name not in schemas:
            continue
        found.add(name)
        text = msgspec.json.encode(schemas[name]).decode()
        left += [other for other in schemas if f'/schemas/{other}"' in text]
    return sorted(found)


# Pages


def _head(title: str, about: str) -> list[str]:
    return [f"# {title}", "", MADE, "", about, ""]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _page(lines: Iterable[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def pages() -> dict[Path, str]:
    return {
        REFERENCE / "settings.md": settings_page(),
        REFERENCE / "cli.md": cli_page(),
        REFERENCE / "metrics.md": metrics_page(),
        REFERENCE / "errors.md": errors_page(),
        REFERENCE / "routes.md": routes_page(),
    }


def main() -> None:
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
