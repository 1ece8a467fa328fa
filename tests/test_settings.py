"""Settings: one table, three sources, and no unknown keys."""

from pathlib import Path
from typing import Any, get_type_hints

import pytest

from indexd.errors import ConfigurationError
from indexd.settings import SWITCHES, Settings, load, rows


def test_the_environment_wins_over_the_file_and_options_over_both(tmp_path: Path) -> None:
    file = tmp_path / "indexd.yaml"
    file.write_text("max_k: 5\npool_size: 3\nbudget_ms: 10\n")
    environ = {"INDEXD_CONFIG": str(file), "INDEXD_MAX_K": "7", "INDEXD_POOL_SIZE": "4"}
    found = load(environ, {"pool_size": 9, "data_dir": None})
    assert (found.max_k, found.pool_size, found.budget_ms) == (7, 9, 10.0)


def test_an_empty_variable_is_an_unset_one() -> None:
    assert load({"INDEXD_DATABASE_URL": "", "OTHER": "x"}) == Settings()


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"INDEXD_MAX_KK": "1"}, "INDEXD_MAX_KK: unknown setting; did you mean max_k"),
        ({"INDEXD_ZZZZ": "1"}, "INDEXD_ZZZZ: unknown setting; `indexd settings`"),
        ({"INDEXD_MAX_K": "many"}, "max_k"),
        ({"INDEXD_MAX_K": "0"}, "max_k"),
        ({"INDEXD_POOL_TIMEOUT_SECONDS": "nan"}, "pool_timeout_seconds"),
        ({"INDEXD_LOG_LEVEL": "loud"}, "log_level"),
        ({"INDEXD_CONFIG": "/no/such/file.yaml"}, "/no/such/file.yaml"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        load(environ)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "embedder_provider",
            "one of local, ollama, openai, sentence-transformers, none, got 'magic'",
        ),
        ("log_level", "one of debug, info, warning, error, got 'magic'"),
    ],
)
def test_a_wrong_word_is_refused_with_those_there_are(name: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: expected {expected}$"):
        load({f"INDEXD_{name.upper()}": "magic"})


@pytest.mark.parametrize("text", ["max_kk: 1", "- 1", "a: [", "max_k: [1]"])
def test_a_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "indexd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError):
        load({"INDEXD_CONFIG": str(file)})


def test_a_switch_is_on_or_off_in_a_file_too(tmp_path: Path) -> None:
    assert {n for n, hint in get_type_hints(Settings).items() if "'off'" in str(hint)} == {
        *SWITCHES
    }
    file = tmp_path / "indexd.yaml"
    file.write_text("auth: off\nbudget_degrade: on\ntracing: on\nmetrics_public: on\n")
    found = load({"INDEXD_CONFIG": str(file)})
    assert (found.auth, found.budget_degrade, found.tracing) == ("off", "on", "on")
    assert found.metrics_public is True
    file.write_text("auth: on\n")
    with pytest.raises(ConfigurationError, match="auth: expected one of off, keys, got 'on'"):
        load({"INDEXD_CONFIG": str(file)})


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:8080", ("127.0.0.1", 8080)), ("[::1]:9", ("::1", 9)), ("h:0", ("h", 0))],
)
def test_an_address_is_host_and_port(address: str, expected: Any) -> None:
    assert Settings(bind_addr=address).host_and_port == expected


@pytest.mark.parametrize("address", ["8080", "host", ":80", "host:99999", "host:-1"])
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="bind_addr"):
        _ = Settings(bind_addr=address).host_and_port


def test_every_setting_says_what_it_does() -> None:
    assert [row.name for row in rows()] == list(Settings.__struct_fields__)
    assert all(row.help and not row.help.endswith(".") for row in rows())


POOLER = {
    "INDEXD_DATABASE_URL": "postgresql://a@pooler/x",
    "INDEXD_DATABASE_DIRECT_URL": "postgresql://a@db/x",
}


def test_maintenance_goes_past_the_pooler_where_the_settings_say_how() -> None:
    assert load(POOLER).maintenance_url == "postgresql://a@db/x"
    assert load({"INDEXD_DATABASE_URL": "postgresql://a@db/y"}).maintenance_url == (
        "postgresql://a@db/y"
    )


def test_a_database_of_the_command_line_is_not_that_of_the_environment() -> None:
    found = load(POOLER, {"database_url": "postgresql://a@elsewhere/z"})
    assert found.database_direct_url is None
    assert found.maintenance_url == "postgresql://a@elsewhere/z"
    # An option that was not given changes nothing.
    assert load(POOLER, {"database_url": None}).database_direct_url == "postgresql://a@db/x"


def test_a_direct_url_alone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="database_direct_url: expected database_url"):
        load({"INDEXD_DATABASE_DIRECT_URL": "postgresql://a@db/x"})


def test_the_password_of_the_file_is_for_both_urls(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    found = load({**POOLER, "INDEXD_DATABASE_PASSWORD_FILE": str(file)})
    assert found.database_url == "postgresql://a:secret@pooler/x"
    assert found.database_direct_url == "postgresql://a:secret@db/x"
