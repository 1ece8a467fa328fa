"""Every place that docs/glossary.md names for a word exists: column, field, command, metric."""

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from indexd.api import openapi
from indexd.settings import rows
from scripts.reference import all_commands, application
from tests.test_deploy import exported

PAGE = (Path(__file__).parents[1] / "docs" / "glossary.md").read_text()
ENTRIES = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| word ")
]


def places(pattern: str) -> list[str]:
    """Those of the last column that look like this."""
    named = [place for _, _, where in ENTRIES for place in re.findall("`([^`]+)`", where)]
    found = [place for place in named if re.fullmatch(pattern, place)]
    assert found, pattern
    return found


COLUMN = r"[a-z_]+\.[a-z_]+"
FUNCTION = r"[a-z_]+\(\)"
FIELD = r"\{[a-z_]+\}"
COMMAND = r"indexd .+"
METRIC = r"index_\w+"
SETTING = r"INDEXD_\w+"


def test_every_word_has_one_sentence_and_a_place_of_a_kind_that_is_looked_up() -> None:
    assert len(ENTRIES) >= 30
    words = [word for word, _, _ in ENTRIES]
    assert len(set(words)) == len(words)
    for word, meaning, where in ENTRIES:
        assert re.fullmatch(r"[A-Z].+\.", meaning), word
        # A full stop and a capital begin a second sentence.
        assert not re.search(r"\.\s+[A-Z]", meaning), word
        kinds = "|".join((COLUMN, FUNCTION, FIELD, COMMAND, METRIC, SETTING))
        assert re.fullmatch(rf"(`({kinds})` ?)+", where), word


def test_every_column_and_function_exists(clone: psycopg.Connection[Any]) -> None:
    columns = clone.execute(
        """
        SELECT relname || '.' || attname
          FROM pg_attribute
          JOIN pg_class
            ON pg_class.oid = attrelid
         WHERE relnamespace = 'indexd'::regnamespace
           AND attnum > 0
           AND NOT attisdropped
        """
    ).fetchall()
    assert {(place,) for place in places(COLUMN)} - {*columns} == set()
    functions = clone.execute(
        "SELECT proname || '()' FROM pg_proc WHERE pronamespace = 'indexd'::regnamespace"
    ).fetchall()
    assert {(place,) for place in places(FUNCTION)} - {*functions} == set()


def test_every_field_is_one_of_a_body() -> None:
    schemas = openapi.document(application())["components"]["schemas"]
    fields = {field for schema in schemas.values() for field in schema.get("properties", {})}
    assert {place.strip("{}") for place in places(FIELD)} - fields == set()


@pytest.mark.parametrize("place", places(COMMAND))
def test_every_command_exists_with_its_option(place: str) -> None:
    name, _, option = place.removeprefix("indexd ").partition(" --")
    [command] = [one.command for one in all_commands() if one.name == name]
    options = {given for one in command.params for given in one.opts}
    assert not option or f"--{option}" in options


def test_every_metric_and_setting_exists() -> None:
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in exported()}
    assert {*places(METRIC)} - families == set()
    assert {*places(SETTING)} - {row.variable for row in rows()} == set()
