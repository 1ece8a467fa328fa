"""Rules of the house that a reader may rely on, held over the syntax tree of the program."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import indexd

SOURCE = Path(indexd.__file__).parent

MOST_PARAMETERS = 6

MOST_LINES = 420
"""Lines of a file: beyond them it holds two ideas."""

LONG = {
    "api/structs.py": "the bodies of all routes, one after the other",
    "db/schema.py": "the tables, one after the other",
    "settings.py": "all settings, one after the other",
}

MUTABLE = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
MAKES_MUTABLE = {"dict", "list", "set", "defaultdict", "deque", "Counter", "OrderedDict"}


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """The name and the syntax tree of each module. They are read once, which takes 0.5 s."""
    named = ((str(path.relative_to(SOURCE)), path) for path in sorted(SOURCE.rglob("*.py")))
    return tuple(
        (name, ast.parse(path.read_text()))
        for name, path in named
        if not name.startswith("migrations")
    )


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without self and cls, which no caller gives."""
    given = function.args
    named = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in named if name not in ("self", "cls")])


def test_no_function_takes_more_than_six_parameters() -> None:
    found = {
        f"{name}:{function.lineno} {function.name}"
        for name, tree in modules()
        for function in functions(tree)
        if parameters(function) > MOST_PARAMETERS and not is_command(function)
    }
    assert not found


MOST_STATEMENTS = 5
"""Statements of a handler: more are work that belongs to a function with a name."""

LONG_HANDLERS = {"documents.py:upsert", "search.py:search", "search.py:related"}
"""Each of their statements is one step of the request, in the order in which they happen."""


def test_a_handler_is_a_few_lines() -> None:
    lengths = {
        f"{Path(name).name}:{function.name}": len(function.body) - 1  # without its docstring
        for name, tree in modules()
        if name.startswith("api/routes/")
        for function in functions(tree)
        if function.decorator_list
    }
    assert len(lengths) > 15
    assert {name for name, count in lengths.items() if count > MOST_STATEMENTS} <= LONG_HANDLERS
    assert all(lengths[name] > MOST_STATEMENTS for name in LONG_HANDLERS), "take it off the list"


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """The options of a command are its parameters: a person gives the few that he needs."""
    return any(
        "click" in ast.unparse(one) or ".command" in ast.unparse(one)
        for one in function.decorator_list
    )


def test_no_module_keeps_state() -> None:
    """What a process remembers is owned by the application and passed on."""
    found = {
        f"{name}:{node.lineno} {ast.unparse(node)[:40]}"
        for name, tree in modules()
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and is_mutable(node.value)
        if "__all__" not in ast.unparse(node)
        if changes(tree, node)
    }
    assert not found


def is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id in MAKES_MUTABLE
    return isinstance(value, MUTABLE)


def changes(tree: ast.Module, node: ast.Assign | ast.AnnAssign) -> bool:
    """Whether the module itself writes into the object: a table that is only read is a constant."""
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    name = ast.unparse(target)
    for one in ast.walk(tree):
        if (
            isinstance(one, ast.Subscript)
            and isinstance(one.ctx, ast.Store | ast.Del)
            and ast.unparse(one.value) == name
        ):
            return True
        if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute):
            method = one.func.attr in ("append", "add", "clear", "pop", "update", "setdefault")
            if method and ast.unparse(one.func.value) == name:
                return True
    return False


def test_a_file_that_grows_holds_one_idea() -> None:
    lines = {
        str(path.relative_to(SOURCE)): len(path.read_text().splitlines())
        for path in SOURCE.rglob("*.py")
    }
    assert {name for name, count in lines.items() if count > MOST_LINES} <= LONG.keys()
    assert all(lines.get(name, 0) > MOST_LINES for name in LONG), "take it from LONG"


def test_each_module_says_what_it_is() -> None:
    assert not {name for name, tree in modules() if tree.body and not ast.get_docstring(tree)}


def test_a_public_class_has_a_name_of_its_own() -> None:
    places = defaultdict(set)
    for name, tree in modules():
        if name.startswith("push/"):
            continue  # a client of the HTTP API, which shares no code with the server
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(name)
    assert not {one: where for one, where in places.items() if len(where) > 1}
