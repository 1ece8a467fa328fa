"""Turns rows into upsert requests: all rows of a document become one request."""

import sqlite3
from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime
from itertools import groupby
from operator import attrgetter

import msgspec
import numpy as np
import pyarrow.parquet as pq
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from indexd.push import rows
from indexd.push.rows import Key, Row, SourceRef


class Failure(msgspec.Struct, frozen=True):
    """Numbers of rows that were not stored, and the reason."""

    rows: tuple[int, ...]
    doc_id: str | None
    why: str


class Document(msgspec.Struct, frozen=True):
    """One document. `line` is its line in a bulk request, empty if one of its rows failed."""

    namespace: str | None
    doc_id: str | None
    rows: tuple[int, ...]
    line: bytes = b""
    failures: tuple[Failure, ...] = ()


class _Chunk(msgspec.Struct, omit_defaults=True):
    id: str | None = None
    text: str | None = None
    embedding: list[float] | UnsetType = UNSET
    meta: msgspec.Raw | UnsetType = UNSET


class _Upsert(msgspec.Struct, omit_defaults=True):
    namespace: str
    doc_id: str
    chunks: list[_Chunk]
    source_ref: SourceRef | None = None
    half_life_seconds: float | None = None
    ingested_at: datetime | None = None


_encoder = msgspec.json.Encoder()


def read(file: pq.ParquetFile, namespace: str | None = None) -> Iterator[Document]:
    """Yield every document of the file once, with all its rows; `namespace` overrides the column.

    An upsert replaces a document, so a second request for a document would overwrite the first.
    Rows of one document that are adjacent are collected while the file is read. Documents whose
    rows are not adjacent are found in a first pass over the key columns, which keeps 8 bytes per
    run of adjacent rows. Their rows go to a temporary SQLite database on disk, whose ORDER BY is an
    external sort, and are yielded last. So the memory holds one batch and the largest document, in
    whatever order the rows are. A sorted file only needs the first pass in addition.
    """
    scattered = _scattered(rows.keys(file, namespace))
    # A database without a name is a temporary file that SQLite deletes when it is closed. The
    # garbage collector may close it in another thread (`check_same_thread`).
    with closing(sqlite3.connect("", check_same_thread=False)) as aside:
        aside.execute("CREATE TABLE scattered (namespace, doc_id, number INTEGER, row BLOB)")
        for key, run in groupby(rows.read(file, namespace), key=attrgetter("key")):
            if key is None:
                yield from (_unknown(row) for row in run)
            elif _is_in(scattered, hash(key)):
                aside.executemany(
                    "INSERT INTO scattered VALUES (?, ?, ?, ?)",
                    ((*key, row.number, msgspec.msgpack.encode(row)) for row in run),
                )
            else:
                yield _document(key, list(run))
        for key, run in groupby(_put_aside(aside), key=attrgetter("key")):
            yield _document(key, list(run))


def _scattered(keys: Iterable[Key | None]) -> NDArray[np.int64]:
    """Sorted hashes of the documents whose rows are not all adjacent.

    If two documents have the same hash, both are treated as scattered, which is only slower.
    """
    runs = array("q", (hash(key) for key, _ in groupby(keys) if key is not None))
    found, times = np.unique(np.frombuffer(runs, dtype=np.int64), return_counts=True)
    return found[times > 1]


def _is_in(hashes: NDArray[np.int64], wanted: int) -> bool:
    if not hashes.size:
        return False
    place = int(np.searchsorted(hashes, wanted))
    return place < hashes.size and int(hashes[place]) == wanted


def _put_aside(database: sqlite3.Connection) -> Iterator[Row]:
    decoder = msgspec.msgpack.Decoder(Row)
    for (row,) in database.execute("SELECT row FROM scattered ORDER BY namespace, doc_id, number"):
        yield decoder.decode(row)


def _unknown(row: Row) -> Document:
    return Document(
        None, None, (row.number,), failures=(Failure((row.number,), None, row.wrong or ""),)
    )


def _document(key: Key, members: list[Row]) -> Document:
    namespace, doc_id = key
    numbers = tuple(row.number for row in members)
    failures = [Failure((row.number,), doc_id, row.wrong) for row in members if row.wrong]
    if failures:
        good = tuple(row.number for row in members if not row.wrong)
        if good:
            failures.append(Failure(good, doc_id, "not sent without the rest of the document"))
        return Document(namespace, doc_id, numbers, failures=tuple(failures))
    request = _Upsert(
        namespace,
        doc_id,
        [
            _Chunk(
                chunk_id,
                row.text,
                _numbers(row.embedding) if row.embedding else UNSET,
                msgspec.Raw(row.meta) if row.meta else UNSET,
            )
            for row, chunk_id in zip(members, _chunk_ids(doc_id, members), strict=True)
        ],
        source_ref=next((row.source_ref for row in members if row.source_ref), None),
        half_life_seconds=next(
            (row.half_life_seconds for row in members if row.half_life_seconds), None
        ),
        ingested_at=next((row.ingested_at for row in members if row.ingested_at), None),
    )
    return Document(namespace, doc_id, numbers, _encoder.encode(request))


def _numbers(embedding: bytes) -> list[float]:
    """The numbers as float64, so that the service can restore the same float32 bit for bit."""
    numbers: list[float] = np.frombuffer(embedding, "<f4").tolist()
    return numbers


def _chunk_ids(doc_id: str, members: list[Row]) -> Iterator[str | None]:
    """The id of each row's chunk; repeated ids get a suffix. None: the service makes the id.

    The service makes `<doc_id>#<place>`. If another row has this id, a suffix is added here too.
    """
    taken = {row.chunk_id for row in members}
    own: set[str] = set()
    last: dict[str, int] = {}
    for place, row in enumerate(members):
        wanted = row.chunk_id or f"{doc_id}#{place}"
        if row.chunk_id is None and wanted not in taken:
            taken.add(wanted)
            yield None
        elif row.chunk_id is not None and wanted not in own:
            own.add(wanted)
            yield wanted
        else:
            number = last.get(wanted, 1) + 1
            while f"{wanted}#{number}" in taken:
                number += 1
            last[wanted] = number
            taken.add(f"{wanted}#{number}")
            yield f"{wanted}#{number}"
