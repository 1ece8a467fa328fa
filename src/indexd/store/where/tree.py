"""The tree of a `where` filter, parsed from decoded JSON and checked."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias

import msgspec

from indexd.errors import InvalidField, UnknownField

MAX_LEAVES = 100
"""Comparisons of a tree."""

MAX_LEVELS = 16
"""Levels of a tree, of which a leaf is one; and of a value."""

MAX_VALUES = 1_000
"""Values of all leaves, each element of a list for itself."""

MAX_BYTES = 65_536
"""Bytes of a tree as JSON."""

MAX_DIGITS = 1_000
"""Digits of a whole number."""

_EQUALITY = frozenset({"eq", "ne", "in", "nin"})
ORDERINGS = frozenset({"gt", "gte", "lt", "lte"})
_PRESENCE = frozenset({"exists", "missing"})
_ARRAYS = frozenset({"contains", "any", "all"})
_TEXTS = frozenset({"prefix", "match"})
_LISTS = frozenset({"in", "nin", "any", "all"})
OPERATORS = _EQUALITY | ORDERINGS | _PRESENCE | _ARRAYS | _TEXTS

_BY_KIND = MappingProxyType(
    {
        "text": _EQUALITY | _PRESENCE | _TEXTS,
        "time": _EQUALITY | _PRESENCE | ORDERINGS,
        "number": _EQUALITY | _PRESENCE | ORDERINGS,
        "tags": _EQUALITY | _PRESENCE | _ARRAYS | _TEXTS,
        "meta": OPERATORS,
    }
)
KINDS = MappingProxyType(
    {
        "doc_id": "text",
        "chunk_id": "text",
        "text": "text",
        "tags": "tags",
        "source_path": "text",
        "source_ref.origin": "text",
        "source_ref.id": "text",
        "source_ref.trust_level": "text",
        "ingested_at": "time",
        "created_at": "time",
        "expires_at": "time",
        "version": "number",
        "meta": "meta",
    }
)
"""The kind of each field; it decides which operators and values the field takes."""

_TIME = re.compile(
    r"([0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01]))"
    r"([Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]+)?)?"
    r"([Zz]|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)?)?"
)
"""The texts that indexd.moment of the database reads, but for impossible days."""


class Leaf(msgspec.Struct, frozen=True, tag=True):
    """One comparison. `keys` is the path below `meta`; `value` is None for exists and missing."""

    field: str
    op: str
    value: Any = None
    keys: tuple[str, ...] = ()


class And(msgspec.Struct, frozen=True, tag=True):
    """All parts are true."""

    parts: tuple["Where", ...]


class Or(msgspec.Struct, frozen=True, tag=True):
    """At least one part is true."""

    parts: tuple["Where", ...]


class Not(msgspec.Struct, frozen=True, tag=True):
    """The part is false."""

    part: "Where"


Where: TypeAlias = And | Or | Not | Leaf


class _Count:
    """The leaves and values of the tree that is being parsed."""

    def __init__(self) -> None:
        self.leaves = 0
        self.values = 0


def parse(tree: Any) -> Where:
    """Check a decoded tree; raise InvalidField with the path of what is wrong in it."""
    where = _node(tree, "where", 1, _Count())
    if len(msgspec.json.encode(tree)) > MAX_BYTES:
        raise InvalidField(f"`where` must be at most {MAX_BYTES:,} bytes of JSON")
    return where


def field_of(name: Any, path: str) -> tuple[str, tuple[str, ...]]:
    """The field that is named, one of KINDS, and the path below `meta`; raise InvalidField."""
    return _field(name, path)


def is_time(text: str) -> bool:
    """Whether this is an ISO 8601 date or date-time of a day that exists."""
    found = _TIME.fullmatch(text)
    if found is None:
        return False
    try:
        date.fromisoformat(found[1])
    except ValueError:
        return False
    return True


def _node(tree: Any, path: str, level: int, count: _Count) -> Where:
    if not isinstance(tree, dict):
        raise InvalidField(f"`{path}` must be an object with `and`, `or`, `not` or `field`")
    if level > MAX_LEVELS:
        raise InvalidField(f"`where` must have at most {MAX_LEVELS} levels")
    if "field" in tree or "op" in tree:
        return _leaf(tree, path, count)
    _known_keys(tree, ("and", "or", "not", "field", "op", "value"), path)
    if len(tree) != 1 or "value" in tree:
        raise InvalidField(f"`{path}` must have exactly one of `and`, `or`, `not`, or be a leaf")
    ((key, below),) = tree.items()
    path = f"{path}.{key}"
    if key == "not":
        if not below:
            raise InvalidField(f"`{path}` must be an object with a condition")
        return Not(_node(below, path, level + 1, count))
    if not isinstance(below, list) or not below:
        raise InvalidField(f"`{path}` must be a non-empty list of conditions")
    parts = tuple(
        _node(part, f"{path}[{place}]", level + 1, count) for place, part in enumerate(below)
    )
    return And(parts) if key == "and" else Or(parts)


def _leaf(tree: dict[str, Any], path: str, count: _Count) -> Leaf:
    _known_keys(tree, ("field", "op", "value"), path)
    for key in ("field", "op"):
        if key not in tree:
            raise InvalidField(f"`{path}.{key}` is missing")
    count.leaves += 1
    if count.leaves > MAX_LEAVES:
        raise InvalidField(f"`where` must have at most {MAX_LEAVES} leaves")
    field, keys = _field(tree["field"], f"{path}.field")
    op = _operator(tree["op"], field, f"{path}.op")
    if op in _PRESENCE:
        if "value" in tree:
            raise InvalidField(f"`{path}.value` must be left out where `op` is `{op}`")
        return Leaf(field, op, keys=keys)
    if "value" not in tree:
        raise InvalidField(f"`{path}.value` is missing")
    value = tree["value"]
    _json(value, f"{path}.value", 1, count)
    if op in _LISTS and not (isinstance(value, list) and value):
        raise InvalidField(f"`{path}.value` must be a non-empty list where `op` is `{op}`")
    for one in value if op in _LISTS else (value,):
        _value(one, field, op, f"{path}.value")
    return Leaf(field, op, value, keys)


def _operator(op: Any, field: str, path: str) -> str:
    if not isinstance(op, str) or op not in OPERATORS:
        raise InvalidField(
            f"`{path}` must be one of {', '.join(sorted(OPERATORS))}",
            hint=_nearest(op, OPERATORS),
        )
    known = _BY_KIND[KINDS[field]]
    if op not in known:
        raise InvalidField(f"`{path}` of `{field}` must be one of {', '.join(sorted(known))}")
    return op


def _field(name: Any, path: str) -> tuple[str, tuple[str, ...]]:
    keys = name.split(".") if isinstance(name, str) else name
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InvalidField(f"`{path}` must be text or a list of texts")
    for key in keys:
        _storable(key, path)
    if len(keys) > 1 and keys[0] == "meta" and (isinstance(name, list) or all(keys)):
        if len(keys) > MAX_LEVELS:
            raise InvalidField(f"`{path}` must have at most {MAX_LEVELS} keys")
        return "meta", tuple(keys[1:])
    joined = ".".join(keys)
    if joined in KINDS and joined != "meta":
        return joined, ()
    known = [*(field for field in KINDS if field != "meta"), "meta.<key>"]
    raise InvalidField(f"`{path}` must be one of {', '.join(known)}", hint=_nearest(joined, known))


def _value(value: Any, field: str, op: str, path: str) -> None:
    """Check one value that `field` is compared with."""
    kind = KINDS[field]
    if op in _TEXTS:
        expected = _expected_text(value, op)
    elif kind == "meta":
        expected = _expected_order(value) if op in ORDERINGS else None
    elif kind == "tags" and op in _EQUALITY:
        expected = _expected_tags(value, op)
    else:
        expected = _EXPECTED[kind](value)
    if expected is not None:
        raise InvalidField(f"`{path}` must {expected}")


def _expected_text(value: Any, op: str) -> str | None:
    if not isinstance(value, str) or not value:
        return f"be non-empty text where `op` is `{op}`"
    if op == "match" and not re.search(r"\w", value):
        return "hold at least one word where `op` is `match`"
    return None


def _expected_order(value: Any) -> str | None:
    if _is_number(value) or (isinstance(value, str) and is_time(value)):
        return None
    return "be a number or an ISO 8601 date or date-time where it is ordered"


def _expected_tags(value: Any, op: str) -> str | None:
    if isinstance(value, list) and all(isinstance(tag, str) for tag in value):
        return None
    return f"be the list of all tags where `op` is `{op}`; `contains` and `any` look for one tag"


def _expected_time(value: Any) -> str | None:
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[3] is None or not is_time(value):
        return "be an RFC 3339 time with an offset"
    return None


_EXPECTED: Mapping[str, Callable[[Any], str | None]] = MappingProxyType(
    {
        "number": lambda value: None if _is_number(value) else "be a number",
        "text": lambda value: None if isinstance(value, str) else "be text",
        "tags": lambda value: None if isinstance(value, str) else "be text",
        "time": _expected_time,
    }
)
"""What a value must be, by the kind of its field; None where it is."""


def _json(value: Any, path: str, level: int, count: _Count) -> None:
    """Check what holds for values of all fields, and count them."""
    if level > MAX_LEVELS:
        raise InvalidField(f"`{path}` must have at most {MAX_LEVELS} levels")
    if value is None:
        raise InvalidField(
            f"`{path}` must not hold null", hint="use the operator `missing`, which has no value"
        )
    if isinstance(value, (list, dict)) and value:
        for one in value.values() if isinstance(value, dict) else value:
            _json(one, path, level + 1, count)
        for key in value if isinstance(value, dict) else ():
            _storable(key, path)
        return
    count.values += 1
    if count.values > MAX_VALUES:
        raise InvalidField(f"`where` must hold at most {MAX_VALUES:,} values")
    if isinstance(value, str):
        _storable(value, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidField(f"`{path}` must be a finite number")
    elif isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
        raise InvalidField(f"`{path}` must be a number of at most {MAX_DIGITS:,} digits")


def _storable(text: str, path: str) -> None:
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        raise InvalidField(f"`{path}` must hold no NUL character and no lone surrogate")


def _known_keys(tree: dict[str, Any], known: tuple[str, ...], path: str) -> None:
    for key in tree:
        if key not in known:
            _unknown_key(key, known, path)


def _unknown_key(key: str, known: tuple[str, ...], path: str) -> NoReturn:
    shown = key.encode(errors="replace").decode()[:64]
    raise UnknownField(
        f"`{path}` has the unknown key `{shown}`, expected {', '.join(known)}",
        hint=_nearest(key, known),
    )


def _nearest(name: Any, known: Iterable[str]) -> str | None:
    if not isinstance(name, str):
        return None
    found = difflib.get_close_matches(name[:64].lower(), sorted(known), n=1, cutoff=0.5)
    return f"did you mean `{found[0]}`?" if found else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
