"""A `where` tree as an SQL condition, for chunks (search) or for documents (list, forget).

Each leaf is true or false, never NULL. What an index can answer is added beside the leaf as a
condition that follows from it.
"""

import json
import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import msgspec

from indexd.store.where.tree import KINDS, ORDERINGS, And, Leaf, Not, Or, Where

_COLUMNS = MappingProxyType(
    {
        "doc_id": "document.doc_id",
        "chunk_id": "chunk.chunk_id",
        "text": "chunk.text",
        "tags": "fields.tags",
        "source_path": "fields.source_path",
        "source_ref.origin": "document.source_ref_origin",
        "source_ref.id": "document.source_ref_id",
        "source_ref.trust_level": "document.source_ref_trust_level",
        "ingested_at": "document.ingested_at",
        "created_at": "document.created_at",
        "expires_at": "document.expires_at",
        "version": "document.version",
        "meta": "fields.meta",
    }
)
_SIGNS = MappingProxyType({"gt": ">", "gte": ">=", "lt": "<", "lte": "<="})
_NEGATED = MappingProxyType({"ne": "eq", "nin": "in", "missing": "exists"})
_MAY_BE_TIME = re.compile(r"[0-9]{4}-")


class Needs(msgspec.Struct, frozen=True):
    """Which aliases a condition on chunks reads."""

    chunk: bool
    fields: bool
    document: bool


class Binds:
    """The values of a statement, each under a name of its own: `%(where_0)s`."""

    def __init__(self, prefix: str = "where") -> None:
        self._prefix = prefix
        self.values: dict[str, Any] = {}

    def __call__(self, value: Any, kind: str) -> str:
        """Bind a value; answer the SQL that stands for it, cast to this type."""
        name = f"{self._prefix}_{len(self.values)}"
        self.values[name] = value
        return f"%({name})s::{kind}"

    def json(self, value: Any) -> str:
        """Bind a value as jsonb."""
        return self(json.dumps(value, ensure_ascii=False), "jsonb")


def chunk_condition(where: Where, binds: Binds) -> str:
    """SQL over the aliases document, chunk and fields; reads the bound `namespace` too."""
    implied = [
        sql for leaf in _conjuncts(where) if (sql := _implied(leaf, binds, of_chunk=True)) != "true"
    ]
    return " AND ".join([*implied, _tree(where, lambda leaf: _leaf(leaf, binds))])


def needs(where: Where) -> Needs:
    """Which aliases `chunk_condition` reads."""
    aliases = {_COLUMNS[leaf.field].partition(".")[0] for leaf in _leaves(where)}
    by_key = any(leaf.field == "source_ref.origin" for leaf in _conjuncts(where))
    return Needs("chunk" in aliases, "fields" in aliases or by_key, "document" in aliases)


def document_condition(where: Where, binds: Binds) -> str:
    """SQL over the alias document; reads the bound `namespace` too."""
    return _tree(where, lambda leaf: _document_leaf(leaf, binds))


def _document_leaf(leaf: Leaf, binds: Binds) -> str:
    column = _COLUMNS[leaf.field]
    implied = _implied(leaf, binds, of_chunk=False)
    exact = _leaf(leaf, binds)
    if column.startswith("document."):
        return exact if implied == "true" else f"({implied} AND {exact})"
    chunks = (
        "JOIN indexd.chunks AS chunk USING (namespace, doc_id, ordinal)"
        if column.startswith("chunk.")
        else ""
    )
    return f"""EXISTS (
        SELECT FROM indexd.chunk_fields AS fields {chunks}
         WHERE fields.namespace = %(namespace)s AND fields.doc_id = document.doc_id
           AND {implied} AND {exact}
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


def _conjuncts(where: Where) -> list[Leaf]:
    """The leaves that must be true wherever the tree is."""
    if isinstance(where, And):
        return [leaf for part in where.parts for leaf in _conjuncts(part)]
    if isinstance(where, Or) and len(where.parts) == 1:
        return _conjuncts(where.parts[0])
    return [where] if isinstance(where, Leaf) else []


def _leaf(leaf: Leaf, binds: Binds) -> str:
    if leaf.op in _NEGATED:
        positive = msgspec.structs.replace(leaf, op=_NEGATED[leaf.op])
        return f"NOT {_leaf(positive, binds)}"
    by_kind = {"meta": _meta, "tags": _tags}
    return f"coalesce({by_kind.get(KINDS[leaf.field], _scalar)(leaf, binds)}, false)"


def _scalar(leaf: Leaf, binds: Binds) -> str:
    column = _COLUMNS[leaf.field]
    kind = KINDS[leaf.field]
    if leaf.op == "exists":
        return f"{column} IS NOT NULL"
    if leaf.op == "prefix":
        return f"starts_with({column}, {binds(leaf.value, 'text')})"
    if leaf.op == "match":
        words = "chunk.words" if leaf.field == "text" else f"indexd.words({column})"
        return f"{words} @@ indexd.any_word({binds(leaf.value, 'text')})"
    if kind == "time":
        column = f"(extract(epoch FROM {column}) * 1000000)"
    if leaf.op == "in":
        if kind == "time":
            listed = binds(leaf.value, "text[]")
            return f"{column} IN (SELECT indexd.moment(one) FROM unnest({listed}) AS one)"
        listed = [str(one) for one in leaf.value]
        return f"{column} = ANY({binds(listed, 'numeric[]' if kind == 'number' else 'text[]')})"
    sign = _SIGNS.get(leaf.op, "=")
    if kind == "time":
        return f"{column} {sign} indexd.moment({binds(leaf.value, 'text')})"
    return f"{column} {sign} {binds(str(leaf.value), 'numeric' if kind == 'number' else 'text')}"


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


def _implied(leaf: Leaf, binds: Binds, *, of_chunk: bool) -> str:
    """SQL that an index can answer and that is true wherever the leaf is; else `true`."""
    values = leaf.value if leaf.op in ("in", "any", "all") else [leaf.value]
    if leaf.field == "doc_id" and leaf.op in ("eq", "in"):
        return f"document.doc_id = ANY({binds(values, 'text[]')})"
    if leaf.field == "tags" and leaf.op in ("any", "all", "contains", "prefix"):
        return _by_key("tag", values, binds)
    if leaf.field == "tags" and leaf.op == "eq" and leaf.value:
        return _by_key("tag", leaf.value, binds)
    if leaf.field == "source_path" and leaf.op in ("eq", "in"):
        return _by_key("source_path", values, binds)
    if leaf.field == "source_ref.origin" and leaf.op in ("eq", "in") and of_chunk:
        return _by_key("source_ref_origin", values, binds)
    if leaf.field == "meta" and leaf.op in ("eq", "contains") and not _may_hold_time(leaf.value):
        below = [leaf.value] if leaf.op == "contains" else leaf.value
        for key in reversed(leaf.keys):
            below = {key: below}
        return f"fields.meta @> {binds.json(below)}"
    return "true"


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
