"""Large bodies: what they hold is counted before it is made, as two bytes can be an object.

A body of 60 MB may be 20 million empty arrays, which take 3 GB. So the values that cost more than
their bytes are counted in the text itself, and of an upsert, embeddings and `meta` are decoded one
by one, each after its own check. What comes out is what the small decoder gives, with embeddings
that are parsed already.
"""

import typing
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, Raw

from indexd import vectors
from indexd.api.json_body import decoded, refuse_nul, validated
from indexd.api.limits import check_meta, check_values, meta_has_too_many
from indexd.api.structs import ChunkIn, Object, UpsertIn
from indexd.errors import InvalidEmbedding, InvalidField
from indexd.settings import Settings

MAX_CONTAINERS = 1_000_000
"""Arrays and objects of one body. Each takes 64 to 100 bytes of memory."""

MAX_STRINGS = 2_000_000
"""Texts of one body, keys included. Each takes 50 bytes of memory beside its own."""

MAX_NUMBERS = 1_000_000
"""Values of one body that is no document. A document's are bounded by its embeddings and metas."""

_BLOCK = 2**20
"""Bytes that are looked at in one step, between which other threads get their turn."""

_QUOTE, _COMMA, _BRACKET, _BRACE = b'",[{'


_NOTHING = (b"", b"null")
"""A meta that was not sent."""


class Count(typing.NamedTuple):
    containers: int
    strings: int
    commas: int


def count(body: bytes) -> Count:
    """What stands in the body outside of its strings, exactly."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    containers = quotes = commas = 0
    inside = False
    for start in range(0, len(body), _BLOCK):
        block = np.frombuffer(body, np.uint8, min(_BLOCK, len(body) - start), start)
        quote = block == _QUOTE
        quotes += int(np.count_nonzero(quote))
        within = np.logical_xor.accumulate(quote) ^ inside
        inside = bool(within[-1])
        opens = ~within & ((block == _BRACKET) | (block == _BRACE))
        containers += int(np.count_nonzero(opens))
        commas += int(np.count_nonzero(~within & (block == _COMMA)))
    return Count(containers, quotes // 2, commas)


def check_count(body: bytes, *, numbers: int | None) -> None:
    """Raises InvalidField for a body that would take too much memory."""
    # This counts those in strings, too: it may be too many, but takes a tenth of the time.
    atmost = Count(body.count(b"[") + body.count(b"{"), body.count(b'"') // 2, body.count(b","))
    bounds = Count(MAX_CONTAINERS, MAX_STRINGS, len(body) if numbers is None else numbers)
    if all(found <= bound for found, bound in zip(atmost, bounds, strict=True)):
        return
    for name, found, bound in zip(
        ("arrays and objects", "texts", "values"), count(body), bounds, strict=True
    ):
        if found > bound:
            raise InvalidField(f"the body: expected at most {bound} {name}, got {found}")


def decode(body: bytes, decoder: msgspec.json.Decoder[Any], settings: Settings) -> Any:
    """The struct that `json_body.decoded` gives; raises its errors, and those of the limits."""
    if decoder.type is not UpsertIn:
        check_count(body, numbers=MAX_NUMBERS)
        return decoded(body, decoder)
    check_count(body, numbers=None)
    outer = validated(body, _decoder, UpsertIn)
    if len(outer.chunks) > settings.max_chunks:
        raise InvalidField(
            f"chunks: expected at most {settings.max_chunks}, got {len(outer.chunks)}"
        )
    if b"\\u0000" in body:
        # Meta and embeddings are looked at one by one below.
        refuse_nul([_without_raw(part) for part in (outer, *outer.chunks)])
    chunks, values = [], 0
    for place, part in enumerate(outer.chunks):
        chunk, own = _chunk(part, f"{outer.doc_id}#{place}", f"chunks[{place}]", settings)
        chunks.append(chunk)
        values += own
        check_values(values)
    meta, _ = _meta(outer.meta, "meta", settings)
    return UpsertIn(**{**msgspec.structs.asdict(outer), "meta": meta, "chunks": chunks})


def _chunk(sent: Any, default_id: str, where: str, settings: Settings) -> tuple[ChunkIn, int]:
    """The chunk, and how many values its meta holds."""
    name = sent.id if sent.id is not None else sent.chunk_id
    chunk_id = f"chunk {default_id if name is None else name!r}"
    meta, values = None, 0
    if bytes(sent.meta) not in _NOTHING:
        parts = validated(bytes(sent.meta), _parts, Object, f"{where}.meta")
        inner = parts.pop("embedding", None)
        meta, values = _meta(Raw(msgspec.json.encode(parts)), f"{where}.meta", settings)
        if inner is not None:
            meta["embedding"] = _embedding(inner, chunk_id)
    embedding = _embedding(sent.embedding, chunk_id) if bytes(sent.embedding) else UNSET
    fields = {**msgspec.structs.asdict(sent), "meta": meta, "embedding": embedding}
    return ChunkIn(**fields), values


def _meta(sent: Raw, where: str, settings: Settings) -> tuple[Any, int]:
    raw = bytes(sent)
    if raw in _NOTHING:
        return None, 0
    if meta_has_too_many(raw, settings):
        raise InvalidField(
            f"{where}: expected at most {settings.max_meta_values} values at all depths"
        )
    meta = decoded(raw, _object, where)
    return meta, check_meta(meta, where, settings)


def _embedding(sent: Raw, where: str) -> Any:
    """Parsed, where it is an array; what else it may be is for later checks."""
    raw = bytes(sent)
    if raw.count(b",") >= vectors.MAX_DIMENSION or raw.count(b"[") > 1:
        raise InvalidEmbedding(f"{where}: the embedding is not valid, {vectors.ALLOWED}")
    value = decoded(raw, _anything)
    return vectors.parse(value, where) if isinstance(value, list) else value


def _without_raw(part: msgspec.Struct) -> Any:
    fields = msgspec.structs.asdict(part).items()
    return msgspec.to_builtins(
        {name: value for name, value in fields if name not in ("chunks", "meta", "embedding")}
    )


def _with_raw(kind: type[msgspec.Struct], raw: dict[str, Any]) -> type[msgspec.Struct]:
    """The same struct, but for the types of some fields."""
    hints: dict[str, Any] = typing.get_type_hints(kind, include_extras=True) | raw
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        spec: tuple[Any, ...] = (field.name, hints[field.name])
        if hints[field.name] is Raw:
            spec = (*spec, msgspec.field(default=Raw(), name=field.encode_name))
        elif field.default is not msgspec.NODEFAULT:
            spec = (*spec, msgspec.field(default=field.default, name=field.encode_name))
        elif field.default_factory is not msgspec.NODEFAULT:
            factory: Callable[[], Any] = field.default_factory
            spec = (*spec, msgspec.field(default_factory=factory, name=field.encode_name))
        fields.append(spec)
    return msgspec.defstruct(
        kind.__name__,
        fields,
        forbid_unknown_fields=kind.__struct_config__.forbid_unknown_fields,
        kw_only=True,
    )


_ChunkParts = _with_raw(ChunkIn, {"embedding": Raw, "meta": Raw})
_UpsertParts = _with_raw(
    UpsertIn,
    {"meta": Raw, "chunks": list[_ChunkParts]},  # type: ignore[valid-type]
)
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_UpsertParts)
_parts = msgspec.json.Decoder(dict[str, Raw])
_object = msgspec.json.Decoder(Object)
_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Any)
