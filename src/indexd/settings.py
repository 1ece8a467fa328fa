"""All settings, which are read from a YAML file and the environment. Unknown keys are refused.

The setting `max_k` is `max_k:` in the file (named by INDEXD_CONFIG) and INDEXD_MAX_K in the
environment. The environment overrides the file; command line options override both.
"""

import difflib
import ipaddress
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from indexd import hosts, policy, urls
from indexd.errors import ConfigurationError

PREFIX = "INDEXD_"
CONFIG_VARIABLE = "INDEXD_CONFIG"

ROOTS_FOLDER = "/var/lib/indexd"
"""The default data folder of root. All users may enter its parent folders, so PostgreSQL can reach
it, although it does not run as root."""

SWITCHES = ("auth", "budget_degrade", "tracing")
"""Settings that are `on` or `off`, which YAML reads as true and false."""

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    bind_addr: Annotated[str, Meta(description="Address and port to listen on")] = "127.0.0.1:8080"
    database_url: Annotated[
        str | None,
        Meta(description="PostgreSQL to use; without it the server brings its own"),
    ] = None
    database_direct_url: Annotated[
        str | None,
        Meta(
            description="The same database past a pooler in transaction mode, for index builds, "
            "migrations and the changes of keys"
        ),
    ] = None
    database_password_file: Annotated[
        str | None, Meta(description="File that holds the password for the database URLs")
    ] = None
    data_dir: Annotated[
        str | None,
        Meta(
            description="Where the server's own PostgreSQL keeps its data; in the home, for root "
            "/var/lib/indexd"
        ),
    ] = None
    policies: Annotated[
        str | None, Meta(description="File of retention policies; without it, the shipped one")
    ] = None
    workers: Annotated[
        Positive, Meta(description="Processes that share the port; a pool and limits for each")
    ] = 1
    auth: Annotated[
        Literal["off", "keys"] | None,
        Meta(description="Whether callers need a key; off on a loopback address, else keys"),
    ] = None
    allowed_hosts: Annotated[
        str | None,
        Meta(description="Names the server may be called by, besides loopback ones, with commas"),
    ] = None
    admin_key_file: Annotated[
        str | None, Meta(description="File that holds an admin key, known from the start on")
    ] = None
    auth_failures_per_minute: Annotated[
        Positive, Meta(description="Wrong keys from one address and process before 429")
    ] = 60
    metrics_public: Annotated[bool, Meta(description="Whether /metrics answers without a key")] = (
        False
    )
    rate_limit: Annotated[
        Positive | None,
        Meta(description="Requests per minute, key and process before 429; no limit if not given"),
    ] = None
    pool_size: Annotated[Positive, Meta(description="Database connections per process")] = 16
    pool_timeout_seconds: Annotated[
        Seconds, Meta(description="How long a request waits for a connection before 503")
    ] = 5.0
    queue_length: Annotated[
        int, Meta(ge=0, description="Requests that may wait for a connection; beyond that 503")
    ] = 256
    overload_prefers: Annotated[
        Literal["latency", "throughput"],
        Meta(
            description="Under overload: refuse early so that accepted requests stay quick, "
            "or keep a short queue so that more are served"
        ),
    ] = "latency"
    max_requests: Annotated[
        Positive, Meta(description="Requests a process holds at once; beyond that 503")
    ] = 1024
    max_bodies: Annotated[
        Positive, Meta(description="Bodies a process receives at once; beyond that 503")
    ] = 1024
    max_bodies_bytes: Annotated[
        Positive, Meta(description="Bytes of all bodies a process holds at once; beyond that 503")
    ] = 512 * 2**20
    caller_share: Annotated[
        float,
        Meta(gt=0, le=1, description="Share of these bounds for one key, or address without keys"),
    ] = 0.5
    body_timeout_seconds: Annotated[
        Seconds, Meta(description="How long a body may keep the server waiting before 408")
    ] = 30.0
    min_body_bytes_per_second: Annotated[
        Positive, Meta(description="Bytes for which a body may take a second more")
    ] = 8192
    statement_timeout_seconds: Annotated[
        Seconds, Meta(description="The longest a single SQL statement of a request may run")
    ] = 30.0
    lock_timeout_seconds: Annotated[
        Seconds, Meta(description="How long a statement waits for another's lock before 503")
    ] = 10.0
    max_body_bytes: Annotated[Positive, Meta(description="Largest request body (413 above)")] = (
        64 * 2**20
    )
    max_line_bytes: Annotated[
        Positive, Meta(description="Largest line of a bulk; the body as a whole has no limit")
    ] = 16 * 2**20
    max_answer_bytes: Annotated[
        Positive,
        Meta(
            description="About the largest answer with documents: a list ends early, what asks for "
            "more by ids is refused"
        ),
    ] = 64 * 2**20
    max_chunks: Annotated[Positive, Meta(description="Most chunks of a document (400 above)")] = (
        10_000
    )
    max_text_chars: Annotated[
        Positive, Meta(description="Longest text of a chunk or a query (400 above)")
    ] = 16 * 2**20
    max_meta_bytes: Annotated[
        Positive, Meta(description="Largest meta of a document or a chunk, as JSON (400 above)")
    ] = 2**20
    max_meta_values: Annotated[
        Positive, Meta(description="Most values of one meta, at all depths (400 above)")
    ] = 10_000
    max_tags: Annotated[Positive, Meta(description="Most tags of a chunk (400 above)")] = 256
    max_tag_chars: Annotated[Positive, Meta(description="Longest tag (400 above)")] = 512
    max_tag_segments: Annotated[
        Positive, Meta(description="Most segments of a tag, as in project/infra (400 above)")
    ] = 32
    max_filter_values: Annotated[
        Positive, Meta(description="Most values of one filter (400 above)")
    ] = 1_000
    max_k: Annotated[
        Positive, Meta(description="Largest k of a search; higher is lowered to it")
    ] = 100
    budget_ms: Annotated[
        Seconds, Meta(description="Latency budget of a search at p95, as answers state it")
    ] = 60.0
    budget_degrade: Annotated[
        Literal["off", "on"],
        Meta(description="Whether searches look at less while their p95 is over the budget"),
    ] = "off"
    index_threshold: Annotated[
        Positive, Meta(description="Chunks from which a namespace gets an HNSW index")
    ] = 20_000
    index_limit: Annotated[
        int, Meta(ge=0, description="Most HNSW indexes there may be; the largest namespaces win")
    ] = 32
    index_worn_share: Annotated[
        float,
        Meta(gt=0, lt=1, description="Share of removed chunks at which an index is built again"),
    ] = 0.2
    hnsw_m: Annotated[int, Meta(ge=2, le=100, description="Links per node of an HNSW index")] = 24
    hnsw_ef_construction: Annotated[
        int, Meta(ge=4, le=1000, description="Candidates while an HNSW index is built")
    ] = 128
    search_ef: Annotated[
        int | None,
        Meta(description="Candidates of an index search; by the namespace's size if not given"),
    ] = None
    search_max_scan_tuples: Annotated[
        Positive, Meta(description="Rows of the index a filtered search may pass over")
    ] = 20_000
    relevance_flush_seconds: Annotated[
        Seconds, Meta(description="How often what searches found is counted towards relevance")
    ] = 5.0
    relevance_limit: Annotated[
        Positive,
        Meta(description="Documents whose exposures are held until then; more are dropped"),
    ] = 10_000
    forget_plan_seconds: Annotated[
        Seconds, Meta(description="How long a dry run of forget may be carried out")
    ] = 900.0
    forget_timeout_seconds: Annotated[
        Seconds, Meta(description="The longest a single SQL statement of a forget may run")
    ] = 600.0
    keeper_interval_seconds: Annotated[
        Seconds, Meta(description="How often the index keeper looks at the namespaces")
    ] = 5.0
    metrics_namespaces: Annotated[
        Positive, Meta(description="Namespaces with metrics of their own; the rest is `_other`")
    ] = 100
    tracing: Annotated[
        Literal["off", "on"],
        Meta(description="Whether OpenTelemetry spans are exported; needs the extra `otel`"),
    ] = "off"
    embedder_provider: Annotated[
        Literal["local", "ollama", "openai", "sentence-transformers", "none"] | None,
        Meta(
            description="What embeds texts: local (a small model that comes with the extra "
            "`local`), ollama, openai (any compatible server), sentence-transformers, or none; "
            "if not given, local where its extra is installed"
        ),
    ] = None
    embedder_base_url: Annotated[
        str | None,
        Meta(description="Where it is; ollama defaults to http://127.0.0.1:11434"),
    ] = None
    embedder_model: Annotated[
        str | None,
        Meta(
            description="Its model; ollama defaults to nomic-embed-text, "
            "sentence-transformers (a name or a folder) to all-MiniLM-L6-v2"
        ),
    ] = None
    embedder_query_prefix: Annotated[
        str | None,
        Meta(
            description="What is written before a query; `none` for nothing; if not given, what "
            "the model is known to want"
        ),
    ] = None
    embedder_passage_prefix: Annotated[
        str | None,
        Meta(description="The same before a text that is stored"),
    ] = None
    embedder_threads: Annotated[
        Positive, Meta(description="Threads of each of the two processes of the local embedder")
    ] = 1
    embedder_dim: Annotated[
        Annotated[int, Meta(ge=1, le=16_000)] | None,
        Meta(description="The dimension its vectors must have; any if not given"),
    ] = None
    embedder_timeout: Annotated[
        Seconds, Meta(description="Seconds that one batch may take, retries included")
    ] = 30.0
    embedder_api_key: Annotated[
        str | None, Meta(description="Key for an openai server; better in a file")
    ] = None
    embedder_api_key_file: Annotated[
        str | None, Meta(description="File that holds the key, and wins over embedder_api_key")
    ] = None
    embedder_batch_size: Annotated[
        Positive, Meta(description="Most texts that are sent to the embedder at once")
    ] = 32
    embedder_concurrency: Annotated[
        Positive, Meta(description="Most batches that are with the embedder at once")
    ] = 4
    embedder_cache_size: Annotated[
        int, Meta(ge=0, description="Query texts whose vectors are remembered")
    ] = 1_000
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least level logged")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "console"],
        Meta(description="auto is console on a terminal and JSON lines elsewhere"),
    ] = "auto"
    shutdown_seconds: Annotated[
        Positive, Meta(description="How long SIGTERM waits for requests under way")
    ] = 10

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Raises ConfigurationError for anything but HOST:PORT or [IPv6]:PORT."""
        host, colon, port = self.bind_addr.rpartition(":")
        if not (colon and host and port.isdecimal() and int(port) < 65536):
            raise ConfigurationError(
                f"bind_addr: expected HOST:PORT such as 127.0.0.1:8080, got {self.bind_addr!r}"
            )
        return host.removeprefix("[").removesuffix("]"), int(port)

    @property
    def maintenance_url(self) -> str | None:
        """The URL for connections that need session locks and LISTEN, past a pooler."""
        return self.database_direct_url or self.database_url

    @property
    def authenticates(self) -> bool:
        """Whether callers need a key: as set by `auth`, else unless the address is loopback."""
        if self.auth is not None:
            return self.auth == "keys"
        return not self.is_loopback

    @property
    def is_loopback(self) -> bool:
        host, _ = self.host_and_port
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def doors(self) -> hosts.Doors:
        """The names by which the server may be called. Raises ConfigurationError for a bad name."""
        open_on_loopback = self.is_loopback and not self.authenticates
        host, _ = self.host_and_port
        return hosts.doors(host, self.allowed_hosts, open_on_loopback=open_on_loopback)

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir).expanduser() if self.data_dir else default_data_path()

    @property
    def policies_path(self) -> Path:
        return Path(self.policies).expanduser() if self.policies else policy.shipped()


class Row(NamedTuple):
    name: str
    variable: str
    default: Any
    help: str


def rows() -> Iterator[Row]:
    """All settings in the order of the fields above, for the reference page and the CLI."""
    # The type: msgspec declares `type_info` to return its base class, which has no `fields`.
    for field in msgspec.inspect.type_info(Settings).fields:  # type: ignore[attr-defined]
        extra = field.type.extra_json_schema or {}
        yield Row(field.name, PREFIX + field.name.upper(), field.default, extra["description"])


def default_data_path() -> Path:
    """The platform's data folder of the user; ROOTS_FOLDER for root on Linux."""
    if sys.platform.startswith("linux") and os.geteuid() == 0:
        return Path(ROOTS_FOLDER)
    return home_data_path()


def home_data_path() -> Path:
    """The data folder in the home of the user who runs this program."""
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/indexd").expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~")).expanduser() / "indexd"
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "indexd"


def load(environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read file and environment, and apply `overrides`. Raises ConfigurationError with the key."""
    names = set(Settings.__struct_fields__)
    given = _from_file(environ.get(CONFIG_VARIABLE))
    if unknown := sorted(set(given) - names):
        where = f"{environ[CONFIG_VARIABLE]}: unknown setting {unknown[0]!r}"
        raise ConfigurationError(f"{where}; {_nearest(str(unknown[0]), names)}")
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in names:
            raise ConfigurationError(f"{variable}: unknown setting; {_nearest(name, names)}")
        # An empty variable counts as unset, because compose files and shells write it so.
        if value != "":
            given[name] = value
    given |= {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`")
        if valid := _choices(name):
            message = f"expected one of {', '.join(valid)}, got {given.get(name)!r}"
        raise ConfigurationError(f"{name or 'settings'}: {message}") from error
    if overrides and overrides.get("database_url") and not overrides.get("database_direct_url"):
        # The direct URL of the environment belongs to the database URL of the environment.
        settings = msgspec.structs.replace(settings, database_direct_url=None)
    if settings.database_direct_url is not None and settings.database_url is None:
        raise ConfigurationError("database_direct_url: expected database_url beside it")
    hosts.allowed(settings.allowed_hosts)
    return _with_password(settings)


def _nearest(name: str, names: Collection[str]) -> str:
    """What may have been meant."""
    nearest = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.7)
    meant = f"did you mean {nearest[0]}? " if nearest else ""
    return f"{meant}`indexd settings` lists those there are"


def _choices(name: str) -> list[str]:
    """The allowed values of a setting whose type is a Literal, else an empty list."""
    hint = get_type_hints(Settings).get(name)
    return [value for part in (hint, *get_args(hint)) for value in get_args(part) if _is_word(part)]


def _is_word(hint: Any) -> bool:
    return get_origin(hint) is Literal


def secret_from(path: str, setting: str) -> str:
    """The content of a file of one line. Raises ConfigurationError with the setting."""
    try:
        secret = Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{setting}: {path} cannot be read") from error
    if not secret:
        raise ConfigurationError(f"{setting}: {path} is empty")
    return secret


def _with_password(settings: Settings) -> Settings:
    if settings.database_url is None:
        return settings
    urls.require_valid(settings.database_url)
    if settings.database_password_file is None:
        return settings
    password = secret_from(settings.database_password_file, "database_password_file")
    direct = settings.database_direct_url
    return msgspec.structs.replace(
        settings,
        database_url=urls.with_password(settings.database_url, password),
        database_direct_url=direct and urls.with_password(direct, password),
        database_password_file=None,
    )


def _from_file(path: str | None) -> dict[str, Any]:
    if not path:
        return {}
    try:
        read = msgspec.yaml.decode(Path(path).read_bytes(), type=dict[str, Any] | None)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    given = read or {}
    for name in SWITCHES:
        if isinstance(value := given.get(name), bool):
            given[name] = "on" if value else "off"
    return given
