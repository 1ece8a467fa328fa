"""The `where` language: what it refuses, and that every answer is that of a model in Python."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

from indexd.errors import InvalidField
from indexd.store.where.conditions import OVER_FIELDS, chunk_condition, parameters
from indexd.store.where.tree import is_time, parse
from tests.conftest import Client, document

STORED = {"n": 1, "t": "2024-01-01T01:00:00+01:00", "a": [1, "x", [2]], "o": {"k": 1}, "z": None}
TRUE = [
    ("n", "eq", 1.0),
    ("n", "lt", 1.5),
    ("t", "eq", "2024-01-01T00:00:00Z"),
    ("t", "eq", "2024-01-01"),
    ("t", "gte", "2024-01-01"),
    ("a", "contains", 1.0),
    ("a", "any", [9, "x"]),
    ("a", "all", [[2.0], 1]),
    ("o", "eq", {"k": 1.0}),
    ("o.k", "in", [3, 1]),
    ("z", "missing", None),
    ("z", "ne", 1),
    ("no", "nin", [1]),
    ("t", "prefix", "2024-01-01T01"),
    ("n", "exists", None),
]
FALSE = [
    ("n", "eq", True),
    ("n", "eq", "1"),
    ("t", "gt", "2024-01-01"),
    ("t", "lt", 5),
    ("n", "contains", 1),
    ("a.0", "exists", None),
    ("o", "eq", {"t": 1}),
    ("z", "eq", 1),
    ("no", "lt", 1),
    ("n", "ne", 1.0),
]


@pytest.mark.parametrize(
    ("leaf", "expected"), [*((leaf, True) for leaf in TRUE), *((leaf, False) for leaf in FALSE)]
)
def test_a_leaf_on_meta_is_true_or_false_and_never_null(
    common_connection: psycopg.Connection[Any], leaf: tuple[str, str, Any], expected: bool
) -> None:
    name, op, value = leaf
    where = parse({"field": f"meta.{name}", "op": op} | ({} if value is None else {"value": value}))
    found = common_connection.execute(
        f"SELECT {chunk_condition(where, OVER_FIELDS)} FROM (SELECT %(meta)s::jsonb AS meta)"
        " AS fields",
        {"meta": json.dumps(STORED), "namespace": "n", **parameters(where)},
    ).fetchone()
    assert found is not None
    assert list(found.values() if isinstance(found, dict) else found) == [expected]


@pytest.mark.parametrize("offset", ["", "Z", "+01:30", "-23:59"])
@pytest.mark.parametrize("day", ["0001-01-01", "1900-02-28", "2000-02-29", "9999-12-31"])
def test_a_moment_is_what_datetime_says(
    common_connection: psycopg.Connection[Any], day: str, offset: str
) -> None:
    text = f"{day}T10:20:30.123456"
    since = datetime.fromisoformat(text + "+00:00") - datetime(1970, 1, 1, tzinfo=UTC)
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
        ({}, "where"),
        ({"and": []}, "where.and"),
        ({"not": {}}, "where.not"),
        ({"an": [1]}, "where"),
        ({"and": [{"field": "tgs", "op": "any", "value": ["a"]}]}, "where.and[0].field"),
        ({"field": "text", "op": "gt", "value": "a"}, "where.op"),
        ({"field": "meta.a", "op": "gt", "value": "2024-02-30"}, "where.value"),
        ({"field": "meta.a", "op": "eq", "value": None}, "where.value"),
        ({"field": "meta.a", "op": "in", "value": []}, "where.value"),
        ({"field": "meta.a", "op": "exists", "value": 1}, "where.value"),
        ({"field": "meta.a", "op": "eq"}, "where.value"),
        ({"field": "meta.a", "op": "eq", "value": "\0"}, "where.value"),
        ({"field": "ingested_at", "op": "gt", "value": "2024-01-01"}, "where.value"),
        ({"field": "version", "op": "eq", "value": "1"}, "where.value"),
        ({"field": "tags", "op": "eq", "value": "a"}, "where.value"),
    ],
)
def test_a_tree_that_is_wrong_is_refused_with_its_path(tree: Any, path: str) -> None:
    with pytest.raises(InvalidField) as refused:
        parse(tree)
    assert f"`{path}`" in refused.value.message


Chunk = dict[str, Any]
"""The fields of a chunk, those of its document among them."""


def holds(tree: Any, leaf: Callable[[Any], bool]) -> bool:
    """The model: a tree of Python's own `all`, `any` and `not`."""
    if "and" in tree:
        return all(holds(part, leaf) for part in tree["and"])
    if "or" in tree:
        return any(holds(part, leaf) for part in tree["or"])
    return not holds(tree["not"], leaf) if "not" in tree else leaf(tree)


def of_any(chunks: list[Chunk], leaf: Any) -> bool:
    """The model of a leaf, of a document or a chunk alone."""
    return any(of_chunk(chunk, leaf) for chunk in chunks)


def of_chunk(chunk: Chunk, leaf: Any) -> bool:
    """The model of a leaf."""
    field, op, wanted = leaf["field"], leaf["op"], leaf.get("value")
    found: Any = chunk
    for key in field.split(".") if field.startswith("meta.") else [field]:
        found = found.get(key) if isinstance(found, dict) else None
    negated = {"ne": "eq", "nin": "in", "missing": "exists"}
    if op in negated:
        return not of_chunk(chunk, leaf | {"op": negated[op]})
    if op == "exists":
        return found is not None and (field != "tags" or found != [])
    if op == "eq" and field == "tags":
        return set(found) == set(wanted)
    if op == "eq":
        return found is not None and key_of(found) == key_of(wanted)
    if op == "in":
        return found is not None and key_of(found) in map(key_of, wanted)
    if op in ("contains", "any", "all"):
        have = [key_of(one) for one in found] if isinstance(found, list) else []
        asked = [key_of(one) for one in ([wanted] if op == "contains" else wanted)]
        check = all if op == "all" else any
        return isinstance(found, list) and check(one in have for one in asked)
    if op == "prefix":
        if field == "tags":
            return any(tag == wanted or tag.startswith(wanted + "/") for tag in found)
        return isinstance(found, str) and found.startswith(wanted)
    have, ask = key_of(found), key_of(wanted)
    if found is None or have[0] not in ("number", "time") or have[0] != ask[0]:
        return False
    order = {"lt": have < ask, "lte": have <= ask, "gt": have > ask, "gte": have >= ask}
    return bool(order[op])


def key_of(value: Any) -> Any:
    """Equal for values that filters take as equal, and in their order where they have one."""
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, (int, float)):
        return "number", value
    if isinstance(value, str) and is_time(value):
        moment = datetime.fromisoformat(value)
        return "time", moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if isinstance(value, list):
        return "list", [key_of(one) for one in value]
    if isinstance(value, dict):
        return "dict", {key: key_of(one) for key, one in value.items() if one is not None}
    return type(value).__name__, value


VALUES: list[Any] = [
    0,
    1,
    1.0,
    -2.5,
    True,
    False,
    "a",
    "a/b",
    "1",
    "",
    "2024-01-01",
    "2024-01-01T00:00:00Z",
    "2024-01-01T01:00:00+01:00",
    "2024-02-30",
    "now",
    [],
    [1, "a"],
    ["2024-01-01"],
    {"k": 1},
    {"l": [1.0]},
]
HELD = [*VALUES, None, {"k": None, "l": [1.0]}]
TAGS = ["a", "a/b", "b", "ab"]
FIRST = datetime(2024, 1, 1, tzinfo=UTC)


def random_meta(dice: random.Random) -> dict[str, Any]:
    return {
        key: dice.choice(HELD)
        for key in ("x", "y", "z.z", "tags")
        if key != "tags" and dice.random() < 0.6
    } | ({"tags": dice.sample(TAGS, dice.randint(0, 2))} if dice.random() < 0.7 else {})


def random_leaf(dice: random.Random) -> Any:
    def one_of(*values: Any) -> Any:
        return dice.choice(values)

    field = one_of(
        "x", "x", "y", "y.k", "y.l", "no", "tags", "doc_id", "source_path", "ingested_at"
    )
    if field == "tags":
        op = one_of("contains", "any", "all", "prefix", "eq", "exists", "missing", "ne")
        value: Any = dice.choice(TAGS)
        if op in ("any", "all", "eq", "ne"):
            value = dice.sample(TAGS, dice.randint(1, 2))
    elif field == "doc_id":
        op = one_of("eq", "in", "prefix", "ne", "nin")
        value = f"d{dice.randrange(40)}" if op in ("eq", "ne") else "d1"
        value = [value, "d7"] if op in ("in", "nin") else value
    elif field == "source_path":
        op = one_of("eq", "prefix", "exists", "missing", "nin")
        value = ["p1"] if op == "nin" else "p1"
    elif field == "ingested_at":
        op = one_of("lt", "lte", "gt", "gte", "eq", "ne")
        value = (FIRST + timedelta(days=dice.randrange(40))).isoformat()
    else:
        field = f"meta.{field}"
        op = one_of(
            *("eq", "ne", "in", "nin", "exists", "missing", "contains", "any", "all"),
            *("lt", "gte", "gt", "lte", "prefix"),
        )
        value = dice.choice(VALUES)
        if op in ("in", "nin", "any", "all"):
            value = dice.sample(VALUES, dice.randint(1, 3))
        elif op in ("lt", "gte", "gt", "lte"):
            value = one_of(0, 1.0, "2024-01-01", "2024-01-01T00:30:00Z")
        elif op == "prefix":
            value = one_of("a", "2024-01-01T")
    leaf = {"field": field, "op": op, "value": value}
    if op in ("exists", "missing"):
        del leaf["value"]
    return leaf


def random_tree(dice: random.Random, levels: int) -> Any:
    kind = dice.choice(["and", "or", "not", "leaf"]) if levels > 1 else "leaf"
    if kind == "leaf":
        return random_leaf(dice)
    if kind == "not":
        return {"not": random_tree(dice, levels - 1)}
    return {kind: [random_tree(dice, levels - 1) for _ in range(dice.randint(1, 3))]}


@pytest.fixture
async def stored(client: Client) -> dict[str, list[Chunk]]:
    """40 documents of one to three chunks with random metas, as the model sees their chunks."""
    dice = random.Random(7)
    found: dict[str, list[Chunk]] = {}
    for n in range(40):
        metas = [
            random_meta(dice)
            | ({"source_path": f"p{dice.randrange(3)}"} if dice.random() < 0.5 else {})
            for _ in range(dice.randint(1, 3))
        ]
        doc_id, own = f"d{n}", random_meta(dice)
        body = document(doc_id, *[[1.0, place] for place in range(len(metas))], metas=metas)
        body |= {"meta": own, "ingested_at": (FIRST + timedelta(days=n)).isoformat()}
        answer = await client.post("/index/upsert", json=body)
        assert answer.status_code == 200, answer.text
        found[doc_id] = [
            {
                "doc_id": doc_id,
                "meta": own | meta,
                "tags": list(dict.fromkeys([*meta.get("tags", []), *own.get("tags", [])])),
                "source_path": meta.get("source_path"),
                "ingested_at": body["ingested_at"],
            }
            for meta in metas
        ]
    return found


async def test_random_trees_find_the_chunks_and_documents_of_the_model(
    client: Client, stored: dict[str, list[Chunk]]
) -> None:
    dice = random.Random(11)
    sizes = []
    for _ in range(300):
        tree = random_tree(dice, 4)
        expected = {
            (doc_id, place)
            for doc_id, chunks in stored.items()
            for place, chunk in enumerate(chunks)
            if holds(tree, partial(of_any, [chunk]))
        }
        body = {"namespace": "notes", "embedding": [1, 0], "k": 100, "filters": {"where": tree}}
        answer = await client.post("/index/search", json=body)
        assert answer.status_code == 200, (tree, answer.text)
        found = {
            (hit["doc_id"], int(hit["chunk_id"].split("#")[1])) for hit in answer.json()["results"]
        }
        assert found == expected, tree
        documents = {
            doc_id for doc_id, chunks in stored.items() if holds(tree, partial(of_any, chunks))
        }
        body = {"namespace": "notes", "filters": {"where": tree}}
        answer = await client.post("/index/documents/list", json=body)
        assert {one["doc_id"] for one in answer.json()["documents"]} == documents, tree
        sizes.append(len(expected))
    # Trees that find nothing, or everything, alone would prove little.
    total = sum(map(len, stored.values()))
    assert sum(0 < size < total for size in sizes) > 150


async def test_a_list_leaves_by_where_only_as_a_dry_run_planned_it(
    client: Client, stored: dict[str, list[Chunk]]
) -> None:
    where = {"field": "doc_id", "op": "in", "value": ["d1", "d2"]}
    body = {"filter": {"namespace": "notes", "where": where}, "reason": "test", "confirm": True}
    answer = await client.post("/index/forget", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "plan_required")
    plan = (await client.post("/index/forget", json=body | {"dry_run": True})).json()
    assert plan["forgotten_count"] == 2
    done = await client.post(
        "/index/forget", json={"reason": "test", "confirm": True, "plan_id": plan["plan_id"]}
    )
    assert done.json()["forgotten_count"] == 2
    told = await client.post("/index/documents/count", json={"namespace": "notes"})
    assert told.json()["documents"] == len(stored) - 2


async def test_a_plan_drifts_where_the_expiry_of_a_document_changed_alone(
    client: Client,
) -> None:
    sent = document("a", [1, 0])
    assert (await client.post("/index/upsert", json=sent)).status_code == 200
    body = {"filter": {"namespace": "notes", "doc_id": "a"}, "reason": "test", "dry_run": True}
    plan = (await client.post("/index/forget", json=body)).json()["plan_id"]
    sent["expires_at"] = "9000-01-01T00:00:00Z"
    assert (await client.post("/index/upsert", json=sent)).json()["version"] == 2
    body = {"reason": "test", "confirm": True, "plan_id": plan}
    answer = await client.post("/index/forget", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "plan_drifted")


async def test_a_where_without_a_namespace_forgets_only_beside_another_filter(
    client: Client, stored: dict[str, list[Chunk]]
) -> None:
    where = {"field": "meta.x", "op": "missing"}
    body = {"filter": {"where": where}, "reason": "test", "confirm": True}
    answer = await client.post("/index/forget", json=body | {"dry_run": True})
    assert (answer.status_code, answer.json()["code"]) == (400, "unsafe_forget")
    body["filter"] = {"where": where, "older_than": (FIRST + timedelta(days=10)).isoformat()}
    answer = await client.post("/index/forget", json=body)
    expected = [
        f"d{n}"
        for n in range(10)
        if any(chunk["meta"].get("x") is None for chunk in stored[f"d{n}"])
    ]
    assert sorted(one["doc_id"] for one in answer.json()["forgotten_docs"]) == sorted(expected)


async def test_leaves_on_texts_times_and_sources_of_the_document(client: Client) -> None:
    body = document("a", [1, 0], [0, 1], texts=["the red house", "blue"])
    body |= {"source_ref": {"origin": "git", "id": "x", "trust_level": "high"}}
    assert (await client.post("/index/upsert", json=body)).status_code == 200
    assert (await client.post("/index/upsert", json=document("b", [1, 1]))).status_code == 200
    for leaf, expected in (
        ({"field": "text", "op": "match", "value": "houses green"}, ["a"]),
        ({"field": "text", "op": "prefix", "value": "the "}, ["a"]),
        ({"field": "chunk_id", "op": "eq", "value": "a#1"}, ["a"]),
        ({"field": "source_ref.origin", "op": "in", "value": ["git"]}, ["a"]),
        ({"field": "source_ref.id", "op": "ne", "value": "x"}, ["b"]),
        ({"field": "source_ref.trust_level", "op": "missing"}, ["b"]),
        ({"field": "version", "op": "gte", "value": 1.0}, ["a", "b"]),
        ({"field": "version", "op": "in", "value": [2, 3]}, []),
        ({"field": "created_at", "op": "gt", "value": "2000-01-01T00:00:00Z"}, ["a", "b"]),
        ({"field": "created_at", "op": "lt", "value": "0001-01-01T00:00:00+12:00"}, []),
        ({"field": "expires_at", "op": "missing"}, ["a", "b"]),
    ):
        for route, key in (("search", "results"), ("documents/list", "documents")):
            body = {"namespace": "notes", "filters": {"where": leaf}}
            if route == "search":
                body |= {"embedding": [1, 0]}
            answer = await client.post(f"/index/{route}", json=body)
            assert answer.status_code == 200, (leaf, answer.text)
            assert sorted({one["doc_id"] for one in answer.json()[key]}) == expected, leaf
