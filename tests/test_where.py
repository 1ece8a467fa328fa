"""The `where` language: what it refuses, and what its SQL answers."""

import json
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from indexd.errors import InvalidField
from indexd.store.where.conditions import Binds, chunk_condition
from indexd.store.where.tree import parse

STORED = {"n": 1, "t": "2024-01-01T01:00:00+01:00", "a": [1, "x", [2]], "o": {"k": 1}, "z": None}
TRUE = [
    ("n", "eq", 1.0), ("n", "lt", 1.5), ("t", "eq", "2024-01-01T00:00:00Z"),
    ("t", "eq", "2024-01-01"),
    ("t", "gte", "2024-01-01"), ("a", "contains", 1.0), ("a", "any", [9, "x"]), ("a", "all", [[2.0], 1]),
    ("o", "eq", {"k": 1.0}), ("o.k", "in", [3, 1]), ("z", "missing", None), ("z", "ne", 1),
    ("no", "nin", [1]), ("t", "prefix", "2024-01-01T01"), ("n", "exists", None),
]  # fmt: skip
FALSE = [
    ("n", "eq", True), ("n", "eq", "1"), ("t", "gt", "2024-01-01"), ("t", "lt", 5), ("n", "contains", 1),
    ("a.0", "exists", None), ("o", "eq", {"t": 1}), ("z", "eq", 1), ("no", "lt", 1), ("n", "ne", 1.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("leaf", "expected"), [*((leaf, True) for leaf in TRUE), *((leaf, False) for leaf in FALSE)]
)
def test_a_leaf_on_meta_is_true_or_false_and_never_null(
    common_connection: psycopg.Connection[Any], leaf: tuple[str, str, Any], expected: bool
) -> None:
    name, op, value = leaf
    tree = {"field": f"meta.{name}", "op": op} | ({} if value is None else {"value": value})
    binds = Binds()
    condition = chunk_condition(parse(tree), binds)
    found = common_connection.execute(
        f"SELECT {condition} AS found FROM (SELECT %(meta)s::jsonb AS meta) AS fields",
        {"meta": json.dumps(STORED), "namespace": "n", **binds.values},
    ).fetchone()
    assert found is not None
    assert list(found.values() if isinstance(found, dict) else found) == [expected]


@pytest.mark.parametrize("offset", ["", "Z", "+01:30", "-23:59"])
@pytest.mark.parametrize("day", ["0001-01-01", "1900-02-28", "2000-02-29", "9999-12-31"])
def test_a_moment_is_what_datetime_says(
    common_connection: psycopg.Connection[Any], day: str, offset: str
) -> None:
    text = f"{day}T10:20:30.123456"
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    since = datetime.fromisoformat(text + "+00:00") - epoch
    sign, hours, minutes = (
        (offset[0] + "1", offset[1:3], offset[4:]) if len(offset) > 1 else (1, 0, 0)
    )
    seconds = since.days * 86_400 + since.seconds
    seconds -= int(sign) * (int(hours) * 3600 + int(minutes) * 60)
    row = common_connection.execute("SELECT indexd.moment(%s)", [text + offset]).fetchone()
    assert row is not None
    assert list(row.values() if isinstance(row, dict) else row) == [
        seconds * 1_000_000 + since.microseconds
    ]


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({}, "where"), ({"and": []}, "where.and"), ({"not": {}}, "where.not"), ({"an": [1]}, "where"),
        ({"and": [{"field": "tgs", "op": "any", "value": ["a"]}]}, "where.and[0].field"),
        ({"field": "text", "op": "gt", "value": "a"}, "where.op"),
        ({"field": "meta.a", "op": "gt", "value": "2024-02-30"}, "where.value"),
        ({"field": "meta.a", "op": "eq", "value": None}, "where.value"),
        ({"field": "meta.a", "op": "in", "value": []}, "where.value"),
        ({"field": "meta.a", "op": "exists", "value": 1}, "where.value"),
        ({"field": "meta.a", "op": "eq"}, "where.value"),
        ({"field": "meta.a", "op": "eq", "value": "\0"}, "where.value"),
    ],
)  # fmt: skip
def test_a_tree_that_is_wrong_is_refused_with_its_path(tree: Any, path: str) -> None:
    with pytest.raises(InvalidField) as refused:
        parse(tree)
    assert f"`{path}`" in refused.value.message
