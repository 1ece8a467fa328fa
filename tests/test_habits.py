"""Checks before a commit are those of the pipeline, and the prose check finds what it is for."""

import importlib.metadata
import importlib.resources
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scripts import prose

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()


def recipe(target: str) -> list[str]:
    """The commands of a target, as a shell in the project's folder would run them."""
    body = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert body is not None
    return [line.strip().replace("$(VENV)", ".venv") for line in body[1].splitlines()]


def test_the_hooks_run_what_make_check_runs_and_the_spell_checker() -> None:
    [local] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    hooks = local["hooks"]
    assert [hook["entry"] for hook in hooks] == [*recipe("check"), ".venv/bin/codespell"]
    for hook in hooks:
        assert hook["language"] == "system"
        assert (hook["pass_filenames"], hook["always_run"]) == (False, True)


def test_every_target_of_the_makefile_is_phony_and_says_what_it_does() -> None:
    targets = re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)
    described = re.findall(r"^([a-z-]+):.*## \S", MAKEFILE, re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert sorted(targets) == sorted(described) == sorted(phony[1].split())


def test_the_package_is_typed_and_has_a_licence() -> None:
    assert (importlib.resources.files("indexd") / "py.typed").is_file()
    about = importlib.metadata.metadata("indexd")
    assert about["License-Expression"] == "MIT"
    assert "MIT License" in (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.py", 'X = 1\n"""So many\nseconds a lock is held."""\n', [2]),
        ("a.py", "# Three attempts in\n# vain, and it stops.\n", [1]),
        ("a.py", "x = 1  # as far as anyone said\n", [1]),
        ("a.py", 'text = "in vain"\nvain = f"{text} in vain"\n', []),
        ("a.md", "A page.\n\n```sh\necho in vain\n```\nWhat there is, it says.\n", [6]),
        ("a.yaml", "key: in vain # this plays no part\n", [1]),
        ("a.md", "So many things, as far as one can see.\n", []),
    ],
)
def test_riddles_are_found_in_prose_and_not_in_code(
    tmp_path: Path, name: str, text: str, lines: list[int]
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert [one.line for one in prose.findings(path)] == lines


def test_a_riddle_fails_the_check(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("It tries, in vain.\n")
    command = [sys.executable, str(ROOT / "scripts" / "prose.py"), str(page)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 1
    assert f"{page}:1: in vain" in outcome.stdout


@pytest.mark.slow
def test_what_was_cleaned_stays_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert [one for one in prose.CLEAN if not Path(one).exists()] == []
    assert prose.main([]) == 0
