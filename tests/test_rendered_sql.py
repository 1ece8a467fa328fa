"""The repository shows each statement as it is sent."""

import re

from tests.rendered_sql import FOLDER, rendered, text_of


def test_the_rendered_statements_are_those_that_are_sent() -> None:
    """Where this fails after an intended change, `make sql` writes them anew."""
    stored = {file.stem: file.read_text() for file in FOLDER.glob("*.sql")}
    assert stored == {name: text_of(statement) for name, statement in rendered().items()}


def test_each_statement_says_its_name() -> None:
    for name, statement in rendered().items():
        assert f"/* indexd:{name.split('-')[0]} */" in statement


def test_each_statement_names_the_namespace_for_each_table_that_it_reads() -> None:
    """One machine or several: a statement never reads another namespace."""
    for statement in rendered().values():
        tables = len(
            re.findall(r"(FROM|JOIN) indexd\.(chunks|documents|namespaces|retention)", statement)
        )
        assert len(re.findall(r"namespace (= |IN \()%\(namespace\)s", statement)) >= tables
