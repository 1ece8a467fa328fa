"""Reads the rows of a parquet file, checks them, and converts them to fields of an upsert request.

The columns understood are namespace, doc_id, id or chunk_id, path, text, embedding, tags,
ingested_at, source_ref and half_life_seconds. Every other column goes into the chunk's meta.
"""

import hashlib
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Meta
from numpy.typing import NDArray

from indexd.errors import ConfigurationError

DEFAULT_NAMESPACE = "vault"

BATCH_ROWS = 1000
"""Number of rows that are read at once, which bounds the memory."""

BUFFER_BYTES = 2**20
"""Bytes of the buffer from which each column is read, which bounds the memory."""

KEY_COLUMNS = ("namespace", "doc_id", "path", "id", "chunk_id", "text")
"""The columns that determine the document of a row."""

Key = tuple[str, str]
"""Namespace and doc_id."""


class BadRow(ValueError):
    """A row that cannot be sent. The message says why and holds nothing of its content."""


class SourceRef(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    origin: Annotated[str, Meta(min_length=1)]
    id: Annotated[str, Meta(min_length=1)]
    offset: str | None = None
    trust_level: Literal["low", "medium", "high"] | None = None
    injected_by: str | None = None


class Row(msgspec.Struct, frozen=True):
    """One row, which becomes a chunk. `key` is None if its document is unknown.

    `wrong` is the reason why the row cannot be sent; then the row has no content.
    """

    number: int
    """Position in the file, from 1."""
    key: Key | None
    wrong: str | None = None
    chunk_id: str | None = None
    text: str | None = None
    embedding: bytes | None = None
    """float32, little-endian."""
    meta: bytes | None = None
    """A JSON object."""
    source_ref: SourceRef | None = None
    half_life_seconds: float | None = None
    ingested_at: datetime | None = None


def open_file(path: Path) -> pq.ParquetFile:
    """Open a parquet file. Raises ConfigurationError if it has no texts and no embeddings."""
    try:
        # One row group may hold the whole file. Only a buffered reader reads it page by page;
        # without a buffer, or with pre_buffer, it reads a whole column of the group at once.
        file = pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: there is no such file") from error
    except (OSError, pa.ArrowException) as error:
        raise ConfigurationError(f"{path}: not a parquet file: {_first_line(error)}") from error
    schema = file.schema_arrow
    if not {"text", "embedding"} & set(schema.names):
        raise ConfigurationError(f"{path}: expected a column embedding or a column text")
    if "embedding" in schema.names and not _holds_vectors(schema.field("embedding").type):
        found = schema.field("embedding").type
        raise ConfigurationError(f"{path}: embedding: expected lists of numbers, got {found}")
    return file


def read(file: pq.ParquetFile, namespace: str | None = None) -> Iterator[Row]:
    """Yield every row in order, also rows that cannot be sent. `namespace` overrides the column.

    The memory holds one batch. Raises ConfigurationError if the file is damaged.
    """
    # pandas stores an index without a name as a column of this name.
    names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
    plain = [name for name in names if name != "embedding"]
    number = 0
    for batch in _batches(file, names):
        columns = [_values(name, batch.column(name)) for name in plain]
        vectors: list[NDArray[np.float32] | BadRow | None] = [None] * batch.num_rows
        if "embedding" in names:
            vectors = _vectors(batch.column("embedding"))
        records = zip(*columns, strict=True) if columns else [()] * batch.num_rows
        for record, vector in zip(records, vectors, strict=True):
            number += 1
            yield _row(number, dict(zip(plain, record, strict=True)), vector, namespace)


def keys(file: pq.ParquetFile, namespace: str | None = None) -> Iterator[Key | None]:
    """Yield the key of every row, from the key columns alone; None where `read` finds no key."""
    names = [name for name in KEY_COLUMNS if name in file.schema_arrow.names]
    for batch in _batches(file, names):
        columns = [_values(name, batch.column(name)) for name in names]
        for record in zip(*columns, strict=True) if columns else [()] * batch.num_rows:
            try:
                yield _key(dict(zip(names, record, strict=True)), namespace)
            except BadRow:
                yield None


def _batches(file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise ConfigurationError(f"the file is damaged: {_first_line(error)}") from error


def _row(
    number: int,
    given: dict[str, Any],
    vector: NDArray[np.float32] | BadRow | None,
    namespace: str | None,
) -> Row:
    key = None
    try:
        key = _key(given, namespace)
        if isinstance(vector, BadRow):
            raise vector
        for value in given.values():
            if isinstance(value, BadRow):
                raise value
        text = given.pop("text", None)
        if not (text is None or isinstance(text, str)):
            raise BadRow(f"text: expected a text, got {type(text).__name__}")
        if vector is None and not text:
            raise BadRow("there is neither an embedding nor a text")
        return Row(
            number,
            key,
            chunk_id=_chunk_id(given),
            text=text,
            embedding=None if vector is None else vector.astype("<f4", copy=False).tobytes(),
            source_ref=_source_ref(given.pop("source_ref", None)),
            half_life_seconds=_half_life(given.pop("half_life_seconds", None)),
            ingested_at=_ingested_at(given.pop("ingested_at", None)),
            meta=_meta(given),
        )
    except BadRow as bad:
        return Row(number, key, wrong=str(bad))


def _key(given: dict[str, Any], namespace: str | None) -> Key:
    """The key, trimmed as the service trims it: rows of one document must have equal keys."""
    space = namespace or _name(given, "namespace") or ""
    text = given.get("text")
    doc_id = _name(given, "doc_id") or _name(given, "path") or _chunk_id(given)
    if doc_id is None:
        if not (isinstance(text, str) and text):
            raise BadRow("there is no doc_id, and no path, id or text to make one of")
        doc_id = hashlib.sha256(text.encode()).hexdigest()
    return space.strip() or DEFAULT_NAMESPACE, doc_id


def _chunk_id(given: dict[str, Any]) -> str | None:
    return _name(given, "id") or _name(given, "chunk_id")


def _name(given: dict[str, Any], column: str) -> str | None:
    """The value of a column as text; None if it is empty. Raises BadRow for other types."""
    value = given.get(column)
    if isinstance(value, str):
        return value or None
    if isinstance(value, BadRow):
        raise value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, UUID)):
        raise BadRow(f"{column}: expected a text or an integer, got {type(value).__name__}")
    return str(value)


def _source_ref(value: Any) -> SourceRef | None:
    # Some writers store a missing struct as a struct whose fields are all null.
    if not value or (isinstance(value, dict) and not any(value.values())):
        return None
    try:
        if isinstance(value, str):
            return msgspec.json.decode(value, type=SourceRef | None)
        return msgspec.convert(value, SourceRef)
    except msgspec.DecodeError as error:
        raise BadRow(f"source_ref: {error}") from error


def _half_life(value: Any) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadRow(f"half_life_seconds: expected a number, got {type(value).__name__}")
    if not 0 < value < math.inf:
        raise BadRow("half_life_seconds: expected a positive finite number or null")
    return float(value)


def _ingested_at(value: Any) -> datetime | None:
    """A timestamp without a zone is UTC; a text must have an offset."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC)
    if value is None or value == "":
        return None
    try:
        moment: datetime = msgspec.convert(value, Annotated[datetime, Meta(tz=True)])
    except msgspec.ValidationError as error:
        raise BadRow(
            "ingested_at: expected a timestamp, or RFC 3339 with date, time and offset"
        ) from error
    return moment


def _meta(given: dict[str, Any]) -> bytes | None:
    """All other columns as JSON, with `path` as source_path. NaN becomes null."""
    path = _name(given, "path")
    meta = {name: value for name, value in given.items() if name not in KEY_COLUMNS}
    if path is not None:
        meta["source_path"] = path
    tags = meta.get("tags")
    if tags is None:
        meta.pop("tags", None)
    elif not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        raise BadRow("tags: expected a list of texts")
    if not meta:
        return None
    try:
        return msgspec.json.encode(meta)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadRow(f"a column holds what JSON cannot: {error}") from error


def _values(name: str, column: "pa.Array[Any]") -> list[Any]:
    """The column as Python values. A BadRow stands for a value that cannot be converted."""
    if _holds_bytes(column.type):
        bad = BadRow(f"{name}: holds bytes, which JSON cannot")
        return [bad if value.is_valid else None for value in column]
    if pa.types.is_timestamp(column.type):
        return _timestamps(name, column)
    return _as_python(name, column)


def _as_python(name: str, column: "pa.Array[Any]") -> list[Any]:
    try:
        return column.to_pylist(maps_as_pydicts="strict")
    except (ValueError, OverflowError, KeyError):
        return [_one_as_python(name, value) for value in column]


def _one_as_python(name: str, value: "pa.Scalar[Any]") -> Any:
    try:
        return value.as_py(maps_as_pydicts="strict")
    except (ValueError, OverflowError, KeyError) as error:
        return BadRow(f"{name}: holds a value that cannot be read ({type(error).__name__})")


def _timestamps(name: str, column: "pa.Array[Any]") -> list[Any]:
    """Times in UTC, cut to microseconds.

    The name of the time zone is not looked up, because not every machine has all time zones.
    """
    kind = column.type
    column = column.view(pa.timestamp(kind.unit))
    if kind.unit == "ns":
        column = column.cast(pa.timestamp("us"), safe=False)
    moments = _as_python(name, column)
    if kind.tz is None:
        return moments
    return [
        moment.replace(tzinfo=UTC) if isinstance(moment, datetime) else moment for moment in moments
    ]


def _vectors(column: "pa.Array[Any]") -> list[NDArray[np.float32] | BadRow | None]:
    """The embeddings, checked as float32, which the service stores; None for a row without one."""
    if pa.types.is_null(column.type):
        return [None] * len(column)
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(column.type.value_type))
    assert isinstance(column, (pa.ListArray, pa.LargeListArray))  # noqa: S101 (for mypy)
    # `values` is the array of all numbers; the offsets point into it. Nulls become NaN.
    flat = column.values.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        numbers = flat.astype(np.float32, copy=False)
    offsets = column.offsets.to_numpy().tolist()
    all_finite = bool(np.isfinite(numbers).all())
    return [
        _vector(numbers[start:end], all_finite) if is_valid else None
        for start, end, is_valid in zip(
            offsets, offsets[1:], column.is_valid().to_pylist(), strict=False
        )
    ]


def _vector(vector: NDArray[np.float32], is_finite: bool) -> NDArray[np.float32] | BadRow:
    if not vector.size:
        return BadRow("embedding: is empty")
    if not (is_finite or np.isfinite(vector).all()):
        return BadRow("embedding: holds null, NaN, infinity or what overflows float32")
    if not vector.any():
        return BadRow("embedding: is all zero")
    return vector


def _holds_vectors(kind: pa.DataType) -> bool:
    if pa.types.is_null(kind):
        return True
    if not (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        return False
    inner = kind.field(0).type
    return pa.types.is_floating(inner) or pa.types.is_integer(inner)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
        or any(_holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    )


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".")
