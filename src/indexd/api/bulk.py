"""The streamed body of /index/bulk: one upsert request per line, written in batches."""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import msgspec
from litestar import Request

from indexd import embedding
from indexd.access import Access
from indexd.api import large_bodies
from indexd.api.deletions import count_by_reason, record_deletions
from indexd.api.in_flight import stay_of
from indexd.api.json_body import decoded, require_content_type
from indexd.api.limits import check_document
from indexd.api.parse import document_from
from indexd.api.structs import BulkOut, LineError, UpsertIn
from indexd.context import Service
from indexd.errors import BodyTooLarge, IndexdError, InvalidRequest
from indexd.load.large_work import LARGE
from indexd.settings import Settings
from indexd.store.documents import Document
from indexd.store.writing import upsert
from indexd.store.writing.upsert import Written

BATCH_DOCUMENTS = 256
BATCH_BYTES = 4 * 2**20
LISTED_ERRORS = 100

CONTENT_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")

_decoder = msgspec.json.Decoder(UpsertIn)


class _Batch:
    """Lines read and not yet written. No document is in it twice: the later line must win."""

    def __init__(self) -> None:
        self.lines: list[int] = []
        self.documents: list[Document] = []
        self.keys: set[tuple[str, str]] = set()
        self.bytes = 0

    def add(self, line: int, document: Document, size: int) -> None:
        self.lines.append(line)
        self.documents.append(document)
        self.keys.add((document.namespace, document.doc_id))
        self.bytes += size

    def must_go_before(self, document: Document) -> bool:
        return (document.namespace, document.doc_id) in self.keys

    @property
    def is_full(self) -> bool:
        return len(self.documents) >= BATCH_DOCUMENTS or self.bytes >= BATCH_BYTES


async def take(request: Request[Any, Any, Any], service: Service, access: Access) -> BulkOut:
    """Read lines as they come and write them batch by batch; a bad one stops none of the others."""
    require_content_type(request.headers.get("content-type", ""), *CONTENT_TYPES)
    out = BulkOut()
    batch = _Batch()
    stay = stay_of(request)
    settings, work = service.settings, service.large_work
    async for number, line in _lines(request.stream(), settings.max_line_bytes):
        sent: UpsertIn | None = None
        try:
            if isinstance(line, IndexdError):
                raise line
            sent = await work.run(len(line), partial(_decoded, line, settings))
            document = await work.run(len(line), partial(_checked, sent, settings))
            access.writes(document.namespace)
        except IndexdError as error:
            _refuse(out, number, sent.doc_id if sent else _doc_id_of(line), error)
            continue
        finally:
            if stay is not None:
                stay.keep(batch.bytes + len(line) if isinstance(line, bytes) else batch.bytes)
        if batch.must_go_before(document):
            batch = await _write(batch, service, out)
        batch.add(number, document, len(line))
        if batch.is_full:
            batch = await _write(batch, service, out)
    await _write(batch, service, out)
    out.errors.sort(key=lambda error: error.line)
    del out.errors[LISTED_ERRORS:]
    return out


class _Named(msgspec.Struct):
    doc_id: str


def _doc_id_of(line: bytes | IndexdError) -> str | None:
    """The id in a line that is no document, if it has one."""
    if isinstance(line, IndexdError) or len(line) > LARGE:
        return None
    try:
        return _named.decode(line).doc_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


_named = msgspec.json.Decoder(_Named)


def _decoded(line: bytes, settings: Settings) -> UpsertIn:
    sent: UpsertIn = (
        large_bodies.decode(line, _decoder, settings)
        if len(line) > LARGE
        else decoded(line, _decoder)
    )
    return sent


def _checked(sent: UpsertIn, settings: Settings) -> Document:
    check_document(sent, settings)
    return document_from(sent)


async def _lines(
    stream: AsyncIterator[bytes], limit: int
) -> AsyncIterator[tuple[int, bytes | BodyTooLarge]]:
    """Number and content of each line that is not blank, holding no more than one of them."""
    number, kept, too_long = 1, bytearray(), False
    async for piece in stream:
        *ended, open_end = piece.split(b"\n")
        for part in ended:
            kept += part
            if too_long or len(kept) > limit:
                yield number, _too_large(limit)
            elif not kept.isspace() and kept:
                yield number, bytes(kept)
            number, kept, too_long = number + 1, bytearray(), False
        if too_long or len(kept) + len(open_end) > limit:
            kept, too_long = bytearray(), True
        else:
            kept += open_end
    if too_long:
        yield number, _too_large(limit)
    elif kept and not kept.isspace():
        yield number, bytes(kept)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the line is longer than max_line_bytes allows ({limit})")


async def _write(batch: _Batch, service: Service, out: BulkOut) -> _Batch:
    """Embed and write a batch, count what came of it, and begin a new one."""
    ready = _Batch()
    embedded = await embedding.embedded_each(batch.documents, service)
    for line, document, made in zip(batch.lines, batch.documents, embedded, strict=True):
        if isinstance(made, IndexdError):
            _refuse(out, line, document.doc_id, made)
        else:
            ready.add(line, made, 0)
    if ready.documents:
        await _write_embedded(ready, service, out)
    return _Batch()


async def _write_embedded(batch: _Batch, service: Service, out: BulkOut) -> None:
    try:
        outcomes = await _write_documents(batch.documents, service, out)
    except InvalidRequest:
        # PostgreSQL refuses a value of one document. Written one by one, only that one fails.
        outcomes = []
        for document in batch.documents:
            try:
                outcomes += await _write_documents([document], service, out)
            except InvalidRequest as error:
                outcomes.append(error)
    for line, document, outcome in zip(batch.lines, batch.documents, outcomes, strict=True):
        refused = outcome if isinstance(outcome, IndexdError) else outcome.refused
        if refused or isinstance(outcome, IndexdError):
            _refuse(out, line, document.doc_id, refused or IndexdError())
            continue
        if outcome.skipped:
            out.skipped += 1
            continue
        out.accepted += 1
        out.chunks += outcome.chunks
        out.unchanged += outcome.unchanged


async def _write_documents(
    sent: Sequence[Document], service: Service, out: BulkOut
) -> list[Written | InvalidRequest]:
    at = service.now()
    outcome = await service.database.write(
        lambda connection: upsert.upsert_many(connection, sent, at=at)
    )
    record_deletions(outcome.deletions, service.metrics)
    count_by_reason(outcome.deletions, out.forgotten)
    return [*outcome.written]


def _refuse(out: BulkOut, line: int, doc_id: str | None, error: IndexdError) -> None:
    out.failed += 1
    if len(out.errors) < 2 * LISTED_ERRORS + BATCH_DOCUMENTS:
        out.errors.append(LineError(line, doc_id, error.code, error.message))
