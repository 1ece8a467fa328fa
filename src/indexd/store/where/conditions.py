"""A `where` tree as an SQL condition, over chunks (search) or over documents (list, forget).

Each leaf is true or false, never NULL. What an index can answer stands beside the leaf, as a
condition that follows from it.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from indexd.store.where.tree import KINDS, ORDERINGS, And, Leaf, Not, Or, Where

Columns = Mapping[str, str]
"""What each field is read from: a column of one of the relations chunks, fields and document."""

OVER_CHUNKS: Columns = MappingProxyType(
    {
        "doc_id": "chunks.doc_id",
        "chunk_id": "chunks.chunk_id",
        "text": "chunks.text",
        "tags": "fields.tags",
        "source_path": "fields.source_path",
        "source_ref.origin": "fields.source_ref_origin",
        "source_ref.id": "document.source_ref_id",
        "source_ref.trust_level": "document.source_ref_trust_level",
        "ingested_at": "chunks.ingested_at",
        "created_at": "document.created_at",
        "expires_at": "document.expires_at",
        "version": "document.version",
        "meta": "fields.meta",
    }
)
OVER_FIELDS: Columns = MappingProxyType(
    {**OVER_CHUNKS, "doc_id": "fields.doc_id", "ingested_at": "fields.ingested_at"}
)
_OVER_DOCUMENTS: Columns = MappingProxyType(
    {
        **OVER_CHUNKS,
        "doc_id": "document.doc_id",
        "ingested_at": "document.ingested_at",
        "source_ref.origin": "document.source_ref_origin",
    }
)
_SIGNS = MappingProxyType({"gt": ">", "gte": ">=", "lt": "<", "lte": "<="})
_NEGATED = MappingProxyType({"ne": "eq", "nin": "in", "missing": "exists"})
_MAY_BE_TIME = re.compile(r"[0-9]{4}-")


class Binds:
    """The values of a statement, each under a name of its own: `%(where_0)s`.

    The compilers bind the same values in the same order, so the values of one fit all.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def __call__(self, value: Any, kind: str) -> str:
        """Bind a value; answer the SQL that stands for it, cast to this type."""
        name = f"where_{len(self.values)}"
        self.values[name] = value
        return f"%({name})s::{kind}"

    def json(self, value: Any) -> str:
        """Bind a value as jsonb."""
        return self(json.dumps(value, ensure_ascii=False), "jsonb")


def chunk_condition(where: Where, columns: Columns) -> str:
    """SQL: a chunk passes, over the relations of `relations`; the bound `namespace` is read too."""
    binds = Binds()
    return _tree(where, lambda leaf: _both(*_leaf_with_index(leaf, columns, binds)))


def index_condition(where: Where) -> str | None:
    """SQL over `fields` that an index answers and that follows from a tree; None where none does.

    It binds what `chunk_condition` binds.
    """
    return _index_tree(where, Binds())


def _index_tree(where: Where, binds: Binds) -> str | None:
    if isinstance(where, Leaf):
        implied, exact = _leaf_with_index(where, OVER_FIELDS, binds)
        return exact if where.field == "doc_id" and where.op in ("eq", "in") else implied
    if isinstance(where, Not):
        _index_tree(where.part, binds)
        return None
    parts = [_index_tree(part, binds) for part in where.parts]
    found = [part for part in parts if part is not None]
    if not found or (isinstance(where, Or) and len(found) < len(parts)):
        return None
    return f"({(' AND ' if isinstance(where, And) else ' OR ').join(found)})"


def relations(where: Where, columns: Columns) -> frozenset[str]:
    """The relations that `chunk_condition` reads: some of chunks, fields and document."""
    return frozenset(columns[leaf.field].partition(".")[0] for leaf in _leaves(where))


def document_condition(where: Where) -> str:
    """SQL: a row `document` passes; a leaf on a chunk's field is true if any of its chunks has it.

    The bound `namespace` is read too.
    """
    binds = Binds()
    return _tree(where, lambda leaf: _document_leaf(leaf, binds))


def parameters(where: Where) -> dict[str, Any]:
    """The values that these conditions need, beside `namespace`."""
    binds = Binds()
    for leaf in _leaves(where):
        _leaf_with_index(leaf, OVER_FIELDS, binds)
    return binds.values


def _leaf_with_index(leaf: Leaf, columns: Columns, binds: Binds) -> tuple[str | None, str]:
    """What an index can answer and the leaf implies, None where nothing is; and the leaf."""
    return _implied(leaf, binds), _leaf(leaf, columns, binds)


def _both(implied: str | None, exact: str) -> str:
    return exact if implied is None else f"({implied} AND {exact})"


def _document_leaf(leaf: Leaf, binds: Binds) -> str:
    implied, exact = _leaf_with_index(leaf, _OVER_DOCUMENTS, binds)
    relation = _OVER_DOCUMENTS[leaf.field].partition(".")[0]
    if relation == "document":
        return exact  # filter keys are those of chunks
    beside = "" if relation == "fields" else "JOIN indexd.chunks USING (namespace, doc_id, ordinal)"
    return f"""EXISTS (
            SELECT 1
              FROM indexd.chunk_fields AS fields {beside}
             WHERE fields.namespace = %(namespace)s
               AND fields.doc_id = document.doc_id
               AND {_both(implied, exact)}
           )"""


def _tree(where: Where, leaf: Callable[[Leaf], str]) -> str:
    if isinstance(where, Leaf):
        return leaf(where)
    if isinstance(where, Not):
        return f"NOT ({_tree(where.part, leaf)})"
    word = " AND " if isinstance(where, And) else " OR "
    return f"({word.join(_tree(part, leaf) for part in where.parts)})"


def _leaves(where: Where) -> list[Leaf]:
    if isinstance(where, Leaf):
        return [where]
    parts = (where.part,) if isinstance(where, Not) else where.parts
    return [leaf for part in parts for leaf in _leaves(part)]


def _leaf(leaf: Leaf, columns: Columns, binds: Binds) -> str:
    if leaf.op in _NEGATED:
        positive = msgspec.structs.replace(leaf, op=_NEGATED[leaf.op])
        return f"NOT {_leaf(positive, columns, binds)}"
    kind = KINDS[leaf.field]
    if kind == "meta":
        return f"coalesce({_meta(leaf, binds)}, false)"
    if kind == "tags":
        return _tags(leaf, binds)
    condition = _scalar(leaf, columns[leaf.field], binds)
    return condition if leaf.field in _NEVER_NULL else f"coalesce({condition}, false)"


_NEVER_NULL = frozenset({"doc_id", "chunk_id", "text", "ingested_at", "created_at", "version"})


def _scalar(leaf: Leaf, column: str, binds: Binds) -> str:
    kind = KINDS[leaf.field]
    if leaf.op == "exists":
        return f"{column} IS NOT NULL"
    if leaf.op == "prefix":
        return f"starts_with({column}, {binds(leaf.value, 'text')})"
    if leaf.op == "match":
        words = "chunks.words" if leaf.field == "text" else f"indexd.words({column})"
        return f"{words} @@ indexd.any_word({binds(leaf.value, 'text')})"
    read, sql_type = _READ[kind]
    if leaf.op == "in":
        return f"{column} = ANY({binds([read(one) for one in leaf.value], f'{sql_type}[]')})"
    return f"{column} {_SIGNS.get(leaf.op, '=')} {binds(read(leaf.value), sql_type)}"


def _moment(text: str) -> datetime:
    """A time that the tree has checked; what is finer than a microsecond is cut off."""
    return datetime.fromisoformat(text.upper())


_READ: Mapping[str, tuple[Callable[[Any], Any], str]] = MappingProxyType(
    {"text": (str, "text"), "number": (str, "numeric"), "time": (_moment, "timestamptz")}
)
"""How a value is sent, and its type in SQL, by the kind of its field."""


def _tags(leaf: Leaf, binds: Binds) -> str:
    if leaf.op == "exists":
        return "cardinality(fields.tags) > 0"
    if leaf.op == "contains":
        return f"{binds(leaf.value, 'text')} = ANY(fields.tags)"
    if leaf.op == "any":
        return f"fields.tags && {binds(leaf.value, 'text[]')}"
    if leaf.op == "all":
        return f"fields.tags @> {binds(leaf.value, 'text[]')}"
    if leaf.op in ("eq", "in"):
        each = [binds(one, "text[]") for one in (leaf.value if leaf.op == "in" else [leaf.value])]
        same = " OR ".join(f"(fields.tags @> {one} AND fields.tags <@ {one})" for one in each)
        return f"({same})"
    wanted = binds(leaf.value, "text")
    test = (
        f"tag = {wanted} OR starts_with(tag, {wanted} || '/')"
        if leaf.op == "prefix"
        else f"indexd.words(tag) @@ indexd.any_word({wanted})"
    )
    return f"EXISTS (SELECT FROM unnest(fields.tags) AS tag WHERE {test})"


def _meta(leaf: Leaf, binds: Binds) -> str:
    # `->` with a text steps into objects only; `#>` would also count into arrays.
    found = "".join(["(fields.meta", *(f" -> {binds(key, 'text')}" for key in leaf.keys), ")"])
    if leaf.op == "exists":
        return f"jsonb_typeof({found}) <> 'null'"
    if leaf.op in ("prefix", "match"):
        text = f"({found} #>> '{{}}')"
        wanted = binds(leaf.value, "text")
        test = (
            f"starts_with({text}, {wanted})"
            if leaf.op == "prefix"
            else f"indexd.words({text}) @@ indexd.any_word({wanted})"
        )
        return f"CASE jsonb_typeof({found}) WHEN 'string' THEN {test} END"
    if leaf.op in ORDERINGS:
        sign = _SIGNS[leaf.op]
        if isinstance(leaf.value, str):
            wanted = binds(leaf.value, "text")
            test = f"indexd.moment({found} #>> '{{}}') {sign} indexd.moment({wanted})"
            return f"(jsonb_typeof({found}) = 'string' AND {test})"
        return f"(jsonb_typeof({found}) = 'number' AND {found} {sign} {binds.json(leaf.value)})"
    wanted = f"indexd.comparable({binds.json(leaf.value)})"
    if leaf.op == "eq":
        return f"indexd.comparable({found}) = {wanted}"
    if leaf.op == "in":
        return f"indexd.comparable({found}) IN (SELECT jsonb_array_elements({wanted}))"
    elements = f"jsonb_array_elements(indexd.comparable({found}))"
    test = {
        "contains": f"EXISTS (SELECT FROM {elements} AS element WHERE element = {wanted})",
        "any": f"""EXISTS (
            SELECT FROM {elements} AS element
             WHERE element IN (SELECT jsonb_array_elements({wanted}))
        )""",
        "all": f"""NOT EXISTS (
            SELECT jsonb_array_elements({wanted}) EXCEPT SELECT {elements}
        )""",
    }[leaf.op]
    return f"CASE jsonb_typeof({found}) WHEN 'array' THEN {test} END"


def _implied(leaf: Leaf, binds: Binds) -> str | None:
    """SQL that the index of fields can answer and that is true wherever the leaf is."""
    values = leaf.value if leaf.op in ("in", "any", "all") else [leaf.value]
    if leaf.field == "tags" and leaf.op in ("any", "all", "contains", "prefix"):
        return _by_key("tag", values, binds)
    if leaf.field == "tags" and leaf.op == "eq" and leaf.value:
        return _by_key("tag", leaf.value, binds)
    if leaf.field == "source_path" and leaf.op in ("eq", "in"):
        return _by_key("source_path", values, binds)
    if leaf.field == "source_ref.origin" and leaf.op in ("eq", "in"):
        return _by_key("source_ref_origin", values, binds)
    if leaf.field == "meta" and leaf.op in ("eq", "contains") and not _may_hold_time(leaf.value):
        below = [leaf.value] if leaf.op == "contains" else leaf.value
        for key in reversed(leaf.keys):
            below = {key: below}
        return f"fields.meta @> {binds.json(below)}"
    return None


def _by_key(kind: str, values: list[str], binds: Binds) -> str:
    wanted = binds(values, "text[]")
    return f"fields.filter_keys && indexd.filter_keys_of(%(namespace)s, '{kind}', {wanted})"


def _may_hold_time(value: Any) -> bool:
    """A time has several spellings, so that containment would miss equal ones."""
    if isinstance(value, str):
        return _MAY_BE_TIME.match(value) is not None
    if isinstance(value, (list, dict)):
        return any(map(_may_hold_time, value.values() if isinstance(value, dict) else value))
    return False
