"""Sending documents to POST /index/bulk: bounded requests, one under way, the next one ready."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import httpx
import msgspec
import stamina

from indexd import __version__
from indexd.addresses import address, can_be_a_key, shown
from indexd.errors import ConfigurationError, Unavailable
from indexd.push.documents import Document, Failure

BATCH_DOCUMENTS = 2000
REQUEST_BYTES = 8 * 2**20
"""A request is closed once it has as many; one document may be larger."""

FIRST_PATIENCE_SECONDS = 5.0
"""How long a server that never answered is asked again: someone may be starting it."""
PATIENCE_SECONDS = 300.0
"""How long one that did is."""
TIMEOUT = httpx.Timeout(PATIENCE_SECONDS, connect=5.0)

# An upsert that arrives twice leaves what it leaves once, so these may be sent again.
RETRIED = frozenset({429, 502, 503, 504})


class Counts(msgspec.Struct, frozen=True):
    """What became of the rows so far; `accepted` holds the unchanged."""

    rows: int = 0
    failed_rows: int = 0
    documents: int = 0
    accepted: int = 0
    unchanged: int = 0
    requests: int = 0
    bytes: int = 0

    @property
    def failed(self) -> int:
        return self.documents - self.accepted

    def __add__(self, other: Self) -> Self:
        pairs = zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True)
        return type(self)(*(mine + theirs for mine, theirs in pairs))


class Outcome(msgspec.Struct, frozen=True):
    """What became of one request's documents, and of those that were not fit to be in it."""

    counts: Counts
    failures: tuple[Failure, ...]
    namespaces: Counter[str]
    """Documents sent to each."""


class Request(msgspec.Struct, frozen=True):
    """The body holds a line for each of `sent`, in this order."""

    body: bytes
    sent: tuple[Document, ...]
    unfit: tuple[Document, ...]

    @property
    def counts(self) -> Counts:
        """All that is known before it is answered."""
        return Counts(
            rows=sum(len(document.rows) for document in (*self.sent, *self.unfit)),
            failed_rows=sum(len(document.rows) for document in self.unfit),
            documents=len(self.sent) + len(self.unfit),
            requests=bool(self.sent),
            bytes=len(self.body),
        )

    @property
    def namespaces(self) -> Counter[str]:
        return Counter(document.namespace for document in self.sent if document.namespace)

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(failure for document in self.unfit for failure in document.failures)


class _LineError(msgspec.Struct):
    line: int
    error: str


class Answer(msgspec.Struct):
    """What POST /index/bulk answers; `errors` lists no more than the first hundred."""

    accepted: int
    unchanged: int
    chunks: int
    failed: int
    errors: list[_LineError]


class _ErrorBody(msgspec.Struct):
    error: str


class Server:
    """A service that takes documents, asked again where that can help."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """Raises ConfigurationError for a URL or a key that cannot be one."""
        if key is not None and not can_be_a_key(key):
            raise ConfigurationError("the key holds characters that no key has")
        headers = {"Content-Type": "application/x-ndjson", "User-Agent": f"indexd/{__version__}"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._url = bulk_url(url)
        self._client = httpx.Client(headers=headers, timeout=TIMEOUT)
        self._answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def address(self) -> str:
        """For people: without the password it may have."""
        return shown(self._url)

    def send(self, body: bytes) -> Answer:
        """Raises Unavailable once patience is over, ConfigurationError where none would help."""
        began = time.monotonic()

        def again(error: Exception) -> bool | float:
            if isinstance(error, httpx.HTTPStatusError):
                return retry_after(error.response)
            waited = time.monotonic() - began
            return isinstance(error, httpx.TransportError) and (
                self._answered or waited < FIRST_PATIENCE_SECONDS
            )

        retrying = stamina.RetryingCaller(attempts=None, timeout=PATIENCE_SECONDS, wait_max=10.0)
        try:
            # Without arguments: hooks that log the retries would log them.
            response = retrying.on(again)(lambda: self._post(body))
        except httpx.HTTPStatusError as error:
            if error.response.status_code in RETRIED:
                raise Unavailable(reason(error)) from error
            raise ConfigurationError(reason(error)) from error
        except httpx.TransportError as error:
            raise Unavailable(reason(error)) from error
        try:
            return msgspec.json.decode(response.content, type=Answer)
        except msgspec.DecodeError as error:
            raise ConfigurationError(f"what answers at {self.address} is not indexd") from error

    def _post(self, body: bytes) -> httpx.Response:
        response = self._client.post(self._url, content=body)
        self._answered = True
        if response.status_code != httpx.codes.OK:
            raise httpx.HTTPStatusError("not taken", request=response.request, response=response)
        return response


def reason(error: BaseException) -> str:
    """Why a request failed, in a sentence for people."""
    if isinstance(error, httpx.HTTPStatusError):
        status, where = error.response.status_code, shown(error.request.url)
        try:
            said = msgspec.json.decode(error.response.content, type=_ErrorBody).error
        except msgspec.DecodeError:
            return f"{where} answered {status}"
        return f"{where} answered {status}: {said}"
    if isinstance(error, httpx.TransportError):
        what = str(error) or type(error).__name__
        return f"{shown(error.request.url)} cannot be reached: {what}"
    return str(error)


def push(
    documents: Iterable[Document], server: Server | None, *, batch: int = BATCH_DOCUMENTS
) -> Iterator[Outcome]:
    """Send all documents and say request by request what came of them; None sends nothing.

    The next request is read and encoded in a thread while the server works on this one, so two
    bodies are held at most. Raises what Server.send and reading raise; nothing is sent after that.
    """
    waiting = requests(documents, batch)
    with ThreadPoolExecutor(1, "read") as reader:
        ahead = reader.submit(next, waiting, None)
        while request := ahead.result():
            ahead = reader.submit(next, waiting, None)
            if server is None or not request.sent:
                yield Outcome(request.counts, request.failures, request.namespaces)
            else:
                yield _outcome(request, server.send(request.body))


def requests(documents: Iterable[Document], batch: int) -> Iterator[Request]:
    """Put documents together, at most `batch` to a request, those that are not fit beside them."""
    sent: list[Document] = []
    unfit: list[Document] = []
    size = 0
    for document in documents:
        (unfit if document.failures else sent).append(document)
        size += len(document.line)
        if len(sent) + len(unfit) >= batch or size >= REQUEST_BYTES:
            yield _request(sent, unfit)
            sent, unfit, size = [], [], 0
    if sent or unfit:
        yield _request(sent, unfit)


def _request(sent: list[Document], unfit: list[Document]) -> Request:
    body = b"\n".join(document.line for document in sent)
    # The lines are in the body now; kept besides, they would double it.
    return Request(
        body, tuple(msgspec.structs.replace(document, line=b"") for document in sent), tuple(unfit)
    )


def _outcome(request: Request, answer: Answer) -> Outcome:
    """Lay the answer's lines to the rows they were made of."""
    sent_rows = sum(len(document.rows) for document in request.sent)
    if answer.accepted + answer.failed != len(request.sent):
        raise ConfigurationError(
            f"{len(request.sent)} documents were sent, and the server answered "
            f"{answer.accepted} accepted and {answer.failed} failed"
        )
    named = [
        Failure(document.rows, document.doc_id, line.error)
        for line in answer.errors
        for document in request.sent[line.line - 1 : line.line]
    ]
    if unnamed := answer.failed - len(named):
        rows = tuple(row for document in request.sent for row in document.rows)
        named.append(
            Failure((), None, f"{unnamed:,} more documents of rows {rows[0]:,} to {rows[-1]:,}")
        )
    answered = Counts(
        failed_rows=sent_rows - answer.chunks, accepted=answer.accepted, unchanged=answer.unchanged
    )
    return Outcome(request.counts + answered, (*request.failures, *named), request.namespaces)


def bulk_url(url: str) -> httpx.URL:
    parsed = address(url, "--url", "http://localhost:8080")
    return parsed.copy_with(path=parsed.path.rstrip("/") + "/index/bulk")


def retry_after(response: httpx.Response) -> bool | float:
    """False for an answer that will be the same again; else when to ask, as the server wants it."""
    if response.status_code not in RETRIED:
        return False
    wanted = response.headers.get("Retry-After", "")
    return min(float(wanted), PATIENCE_SECONDS) or True if wanted.isdecimal() else True
