"""The repository shows each statement as it is sent."""

import ast
import re

from tests.rendered_sql import FOLDER, NAME, ROOT, rendered, text_of

OF_ALL_NAMESPACES = {
    "forgetting.forget.reached",
    "indexes.namespaces",
    "orphans.find",
    "orphans.namespaces",
    "policies.delete",
    "policies.in_force",
    "search.terms_due",
    "stats.by_namespace",
    "stats.document_counts",
    "watch.due",
}
"""Statements that read the rows of several namespaces, or of all."""

RUNS = {"execute", "copy", "every", "first", "column", "value"}
"""Functions and methods that run the statement that is given to them."""


def test_the_rendered_statements_are_those_that_are_sent() -> None:
    """Where this fails after an intended change, `make sql` writes them anew."""
    stored = {file.stem: file.read_text() for file in FOLDER.glob("*.sql")}
    assert stored == {name: text_of(statement) for name, statement in rendered().items()}


def test_each_statement_says_its_name() -> None:
    for name, statement in rendered().items():
        assert f"/* indexd:{name.split('-')[0]} */" in statement


def test_each_statement_names_the_namespace_for_each_table_that_it_reads() -> None:
    """One machine or several: a statement never reads another namespace."""
    wide = set()
    for name, statement in rendered().items():
        tables = len(
            re.findall(r"(FROM|JOIN) indexd\.(chunks|documents|namespaces|retention)", statement)
        )
        named = re.findall(
            r"namespace (?:= |IN \(|= ANY\()%\((?:namespaces?|defaults)\)s"
            r"|documents\.namespace = chunks\.namespace",
            statement,
        )
        if len(named) < tables:
            wide.add(name)
    assert wide == OF_ALL_NAMESPACES


def test_no_statement_of_the_store_runs_without_a_name() -> None:
    """One that is written where it runs begins with its name, too."""
    nameless = [
        f"{path.name}:{given.lineno}"
        for path in sorted((ROOT / "src" / "indexd" / "store").rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in RUNS
        for given in call.args
        if (text := beginning(given)) is not None and not NAME.match(text)
    ]
    assert nameless == []


def beginning(argument: ast.expr) -> str | None:
    """The first characters of a string literal, None for any other expression."""
    if isinstance(argument, ast.JoinedStr):
        argument = argument.values[0]
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return argument.value
    return "" if isinstance(argument, ast.FormattedValue) else None


def test_no_row_of_the_store_is_read_by_number() -> None:
    """A column that is inserted moves no other: rows are structs, or of one column."""
    for path in sorted((ROOT / "src" / "indexd" / "store").rglob("*.py")):
        text = path.read_text()
        # What a pipeline answers has no names; there one column is the namespace's facts.
        numbered = re.findall(r"\brows?\[[^\]]*\d", text)
        assert not numbered or path.name == "one_statement.py", path
        assert not re.search(r"\bfetch(one|all|many)\(", text) or path.name == "rows.py", path
