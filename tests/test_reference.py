"""docs/reference is what `make docs` writes today, and its examples are taken by the program."""

import re
import shlex
from pathlib import Path

import click
import pytest

from indexd.cli import commands
from indexd.cli.settings import table
from indexd.errors import IndexdError
from indexd.settings import Row, Settings, load, rows
from indexd.telemetry.metrics import Metrics
from scripts import reference
from tests.test_deploy import exported

ROOT = Path(__file__).parents[1]
PAGES = reference.pages()
STALE = "run `make docs` and commit what it writes"


@pytest.mark.parametrize("path", [*PAGES], ids=lambda path: path.stem)
def test_a_page_of_the_reference_is_not_stale(path: Path) -> None:
    assert path.exists(), f"{path.name} is missing: {STALE}"
    assert path.read_text() == PAGES[path], f"{path.name} is stale: {STALE}"


def test_no_other_page_lies_among_those_of_the_reference() -> None:
    assert {*reference.REFERENCE.iterdir()} == {*PAGES}


@pytest.mark.parametrize("row", [*rows()], ids=lambda row: row.name)
def test_the_example_of_a_setting_is_taken_and_differs_from_the_default(row: Row) -> None:
    kind = reference._types(Settings)[row.name]
    shown = reference.example(row.name, row.default, kind)
    # This one alone needs another beside it.
    beside = {"INDEXD_DATABASE_URL": "postgresql://a@pooler/x"}
    environ = beside if row.name == "database_direct_url" else {}
    taken = getattr(load({**environ, row.variable: shown}), row.name)
    assert taken not in (None, "...")
    assert taken != row.default, f"give {row.name} an example in scripts/reference.py"


def test_the_table_of_settings_is_complete() -> None:
    page = (reference.REFERENCE / "settings.md").read_text()
    shown = page.partition("<!-- settings -->\n")[2].partition("<!-- end of settings -->")[0]
    assert shown.strip().splitlines() == table()
    for row in rows():
        assert f"\n### {row.name}\n" in page


def test_every_setting_has_a_group() -> None:
    groups = {group.title: names for group, names in reference._grouped([r.name for r in rows()])}
    assert sorted(name for names in groups.values() for name in names) == sorted(
        Settings.__struct_fields__
    )
    assert groups.get("Other", []) == [], "name their group in scripts/reference.py"


def test_every_number_among_the_settings_has_a_unit() -> None:
    types = reference._types(Settings)
    silent = [
        name
        for name, kind in types.items()
        if reference._is_number(kind) and not reference.unit(name, kind)
    ]
    assert silent == [], "name their unit in scripts/reference.py"


def test_every_command_has_an_example_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("memory.backup", "retention.yaml", "embeddings.parquet"):
        Path(name).touch()
    for name, command in reference.all_commands():
        assert name in reference.COMMANDS, f"give `indexd {name}` one in scripts/reference.py"
        program, *words = shlex.split(reference.COMMANDS[name].partition(" >")[0])
        assert [program, *words[: len(name.split())]] == ["indexd", *name.split()]
        command.make_context(name, words[len(name.split()) :])


def test_an_example_that_is_not_taken_would_be_noticed() -> None:
    [serve] = [one.command for one in reference.all_commands() if one.name == "serve"]
    with pytest.raises(click.UsageError):
        serve.make_context("serve", ["--no-such-option"])


def test_every_command_and_option_is_on_the_page() -> None:
    page = (reference.REFERENCE / "cli.md").read_text()
    for name, command in reference.all_commands(commands):
        section = page.partition(f"\n## indexd {name}\n")[2].partition("\n## ")[0]
        options = [option for one in command.params for option in one.opts if option[:1] == "-"]
        assert all(option in section for option in ["--help", *options]), name


def test_every_metric_is_on_the_page() -> None:
    page = (reference.REFERENCE / "metrics.md").read_text()
    ends = ("_bucket", "_sum", "_count")
    for name in exported():
        family = next((name.removesuffix(end) for end in ends if name.endswith(end)), name)
        assert f"| `{family}` |" in page
    shown = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert shown == [name for name, _, _ in reference.families(Metrics())]


def test_every_error_is_on_the_page_with_its_status() -> None:
    page = (reference.REFERENCE / "errors.md").read_text()
    left = [IndexdError]
    while left:
        error = left.pop()
        left += error.__subclasses__()
        if error.__module__ == "indexd.errors" and error.__name__ != "ConfigurationError":
            assert f"| {error.status} | `{error.code}` |" in page


def test_every_route_says_in_a_sentence_what_it_does() -> None:
    found = reference.operations(reference.application())
    assert len(found) >= 19
    for one in found:
        assert len(reference.summary(one).split()) >= 5, one.path
