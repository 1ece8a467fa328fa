"""A command imports what it runs with, and not the modules of all other commands."""

import subprocess
import sys

import click
import pytest

from indexd.cli import PLACES, commands

HEAVY = ("alembic", "httpx", "litestar", "numpy", "psycopg", "sqlalchemy", "structlog", "uvicorn")
"""Packages that take 0.05 to 0.4 s of CPU each to import."""

FIND = """
import sys
from indexd.cli import main
try:
    main()
finally:
    print("imported:", *({package for package in %r if package in sys.modules}))
"""


def imported(*words: str) -> set[str]:
    """Those of HEAVY that this command of `indexd` imports."""
    found = subprocess.run(
        [sys.executable, "-c", FIND % (HEAVY,), *words], capture_output=True, text=True, check=True
    )
    return {*found.stdout.splitlines()[-1].split()[1:]}


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_version_and_the_help_import_nothing_heavy(option: str) -> None:
    assert imported(option) == set()


def test_settings_are_listed_without_the_server() -> None:
    assert imported("settings") == {"psycopg"}


@pytest.mark.parametrize("command", ["backup", "keys", "policy", "restore"])
def test_small_commands_import_neither_the_migrations_nor_the_server(command: str) -> None:
    assert imported(command, "--help").isdisjoint({"alembic", "litestar", "numpy", "sqlalchemy"})


@pytest.mark.parametrize("name", PLACES)
def test_the_line_of_a_command_in_the_list_is_the_first_of_its_own_help(name: str) -> None:
    width = 300
    own = commands.get_command(click.Context(commands), name)
    assert own is not None
    assert own.name == name
    listed = click.Command(name, help=PLACES[name].line)
    assert listed.get_short_help_str(width) == own.get_short_help_str(width)
