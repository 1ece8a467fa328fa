"""From the bytes of a body to a struct, strictly, in one pass."""

import difflib
import re
from collections.abc import Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import msgspec
from litestar.dto import AbstractDTO
from litestar.dto.data_structures import DTOFieldDefinition
from litestar.typing import FieldDefinition
from msgspec import UNSET

from indexd.errors import (
    InvalidEmbedding,
    InvalidField,
    InvalidJson,
    UnknownField,
    UnsupportedContentType,
)

T = TypeVar("T")

MAX_DEPTH = 64
"""How deep free-form objects may nest: deeper than anyone means to, and far from any limit."""


A_TIME = "2026-01-31T12:00:00Z"

_NO_TIME = (
    "Invalid RFC3339 encoded datetime",
    "Timestamp is out of range",
)
"""What the decoder says of a text that is not a time."""

DECODED = "indexd_decoded"
"""In the state of a request's scope: what its large body was decoded to, away from the loop."""


class Json(AbstractDTO[T], Generic[T]):
    """Decodes the body of a handler annotated `data: T` with `dto=Json[T]`.

    Litestar's own way converts twice and takes "5" for 5; this one is msgspec's strict decoder.
    """

    decoder: msgspec.json.Decoder[Any]

    def __class_getitem__(cls, annotation: Any) -> Any:
        made = super().__class_getitem__(annotation)
        if not isinstance(annotation, TypeVar):
            made.decoder = msgspec.json.Decoder(annotation)
        return made

    def decode_bytes(self, value: bytes) -> Any:
        ready = self.asgi_connection.scope["state"].pop(DECODED, UNSET)
        if ready is not UNSET:
            return ready
        content_type = self.asgi_connection.headers.get("content-type", "")
        require_content_type(content_type, "application/json")
        return decoded(value, self.decoder)

    @classmethod
    def create_for_field_definition(
        cls, field_definition: FieldDefinition, handler_id: str, backend_cls: Any = None
    ) -> None:
        """Nothing is prepared per handler."""

    @classmethod
    def generate_field_definitions(
        cls, model_type: type[Any]
    ) -> Generator[DTOFieldDefinition, None, None]:
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        return False


def require_content_type(content_type: str, *allowed: str) -> None:
    """Raises UnsupportedContentType unless it is one of these, parameters aside."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in allowed and not (
        "application/json" in allowed
        and media_type.startswith("application/")
        and media_type.endswith("+json")
    ):
        raise UnsupportedContentType(
            f"Content-Type is {media_type or 'missing'}, expected {' or '.join(allowed)}"
        )


def decoded(body: bytes, decoder: msgspec.json.Decoder[T], where: str = "") -> T:
    """Raises InvalidJson, InvalidField or InvalidEmbedding with the place of what is wrong.

    `where` is the place of these bytes, if they are a part of a body.
    """
    value = validated(body, decoder, decoder.type, where)
    # In JSON a NUL can be written in one way only, and hardly anyone means to.
    if b"\\u0000" in body:
        refuse_nul(msgspec.json.decode(body))
    return value


def validated(body: bytes, decoder: msgspec.json.Decoder[T], expected: Any, where: str = "") -> T:
    """As `decoded`, with NUL characters; messages speak of the fields of the type `expected`."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid_field(str(error), expected, where) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJson(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidJson("the body nests too deeply") from error


def _invalid_field(message: str, expected: Any, where: str) -> Exception:
    if message.startswith(_UNKNOWN):
        return _unknown_field(message, expected, where)
    # A value that the message shows may hold such words, too: the path comes last.
    what, found, path = message.rpartition(" - at `$")
    if not found:
        what, path = message, ""
    place = (where + path.rstrip("`")).lstrip(".") or "the body"
    text = f"{place}: {what[0].lower()}{what[1:]}".replace("`", "")
    if what.startswith("Invalid enum value"):
        text += f", expected {' or '.join(_choices(msgspec.inspect.type_info(expected), path))}"
    elif what in _NO_TIME or what.startswith("Expected `datetime"):
        text = f"{place}: expected an RFC 3339 time with an offset, such as {A_TIME}"
    return InvalidEmbedding(text) if "embedding" in place else InvalidField(text)


def _unknown_field(message: str, expected: Any, where: str) -> UnknownField:
    """A name may hold anything, also what the decoder writes before a path."""
    rest = message.removeprefix(_UNKNOWN).removesuffix("`")
    name, found, path = rest.rpartition("` - at `$")
    if not found:
        name, path = rest, ""
    place = (where + path).lstrip(".")
    known = _choices(msgspec.inspect.type_info(expected), path)
    return unknown(name, known, f"{place}." if place else "")


_UNKNOWN = "Object contains unknown field `"
"""How the decoder begins to say that a struct has no such field."""


def unknown(name: str, known: Sequence[str], inside: str = "") -> UnknownField:
    """The error for a field or a query parameter that is not one of these.

    `inside` is the path of the object that has it, with a dot at its end.
    """
    shown = name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]} and more"
    meant = MEANT.get(name.lower())
    nearest = [other for other in meant or () if other in known]
    if not nearest and meant != ():
        nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return UnknownField(
        f"{inside}{shown}: unknown field, expected {' or '.join(known) or 'none'}",
        hint=f"did you mean {nearest[0]}?" if nearest else "leave it out",
    )


LONGEST_SHOWN = 100
"""Characters of an unknown name that the message shows."""

MEANT: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "collection": ("namespace",),
        "content": ("text",),
        "document_id": ("doc_id",),
        "id": ("doc_id",),
        "key": ("doc_id",),
        "limit": ("k",),
        "metadata": ("meta",),
        "min_trust_level": (),
        "n_results": ("k",),
        "ns": ("namespace",),
        "path": ("source_path",),
        "size": ("k", "limit"),
        "top_k": ("k",),
        "topk": ("k",),
        "ttl": ("ttl_seconds",),
        "values": ("embedding",),
        "vector": ("embedding",),
        "where": ("filters",),
    }
)
"""Names that other services have, in lower case, and ours for the same: none where there is none,
however like another name is.
"""


def _choices(expected: msgspec.inspect.Type, path: str) -> list[str]:
    """The values, or the fields, that there may be at a path such as .chunks[0].meta."""
    steps = re.findall(r"\.(\w+)|(\[)", path.rstrip("`"))
    for name, _ in steps:
        for kind in _kinds(expected):
            match kind:
                case msgspec.inspect.StructType(fields=fields) if name:
                    expected = next((f.type for f in fields if f.encode_name == name), expected)
                case msgspec.inspect.ListType(item_type=item) if not name:
                    expected = item
    found: list[str] = []
    for kind in _kinds(expected):
        match kind:
            case msgspec.inspect.LiteralType(values=values):
                found += map(str, values)
            case msgspec.inspect.StructType(fields=fields):
                found += [field.encode_name for field in fields]
    return found


def _kinds(expected: msgspec.inspect.Type) -> list[msgspec.inspect.Type]:
    """What a type may be: the members of a union, without their descriptions."""
    match expected:
        case msgspec.inspect.Metadata(type=described):
            return _kinds(described)
        case msgspec.inspect.UnionType(types=members):
            return [kind for member in members for kind in _kinds(member)]
    return [expected]


def check_depth(value: Any, where: str) -> int:
    """How many values it holds at all depths; InvalidField if they nest deeper than MAX_DEPTH."""
    level, depth, values = [value], 0, len(value)
    while level := [
        inner
        for outer in level
        for inner in (outer.values() if isinstance(outer, dict) else outer)
        if isinstance(inner, (dict, list))
    ]:
        depth += 1
        if depth >= MAX_DEPTH:
            raise InvalidField(f"{where}: nests deeper than {MAX_DEPTH} levels")
        values += sum(map(len, level))
    return values


def refuse_nul(value: Any) -> None:
    """Raises InvalidField if any text in it, a key or a value, holds a NUL character."""
    left = [value]
    while left:
        current = left.pop()
        if isinstance(current, str) and "\x00" in current:
            raise InvalidField("a text holds a NUL character, which PostgreSQL cannot store")
        if isinstance(current, dict):
            left += [*current.keys(), *current.values()]
        elif isinstance(current, list):
            left += current
