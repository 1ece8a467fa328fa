"""Sends documents to POST /index/bulk in bounded requests, and prepares the next one meanwhile."""

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
"""Number of documents per request at most, by default."""

REQUEST_BYTES = 8 * 2**20
"""Bytes: no document is added to a request of this size. A single document may be larger."""

FIRST_PATIENCE_SECONDS = 5.0
"""Seconds for which a server that never answered is tried again: it may be starting."""

PATIENCE_SECONDS = 300.0
"""Seconds for which a server that has answered before is tried again."""

TIMEOUT = httpx.Timeout(PATIENCE_SECONDS, connect=5.0)

RETRIED = frozenset({429, 502, 503, 504})
"""HTTP statuses after which a request is sent again. An upsert is idempotent, so that is safe."""


class Counts(msgspec.Struct, frozen=True):
    """Numbers of rows and documents so far. `accepted` includes the unchanged documents."""

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
    """The result of one request, including the documents that could not be part of it."""

    counts: Counts
    failures: tuple[Failure, ...]
    namespaces: Counter[str]
    """Number of documents sent to each namespace."""


class Request(msgspec.Struct, frozen=True):
    """One bulk request. The body holds a line for each document of `sent`, in the same order."""

    body: bytes
    sent: tuple[Document, ...]
    unfit: tuple[Document, ...]

    @property
    def counts(self) -> Counts:
        """The counts that are known before the server answers."""
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
    """The answer of POST /index/bulk. `errors` lists the first hundred errors at most."""

    accepted: int
    unchanged: int
    chunks: int
    failed: int
    errors: list[_LineError]


class _ErrorBody(msgspec.Struct):
    error: str


class Server:
    """A running service. Requests are repeated after temporary failures."""

    def __init__(self, url: str, key: str | None = None) -> None:
        """Raises ConfigurationError if the URL or the key is not valid."""
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
        """The URL as a text for people, without a password."""
        return shown(self._url)

    def send(self, body: bytes) -> Answer:
        """Send a body and return the answer.

        Raises Unavailable after a temporary failure that lasted too long (see PATIENCE_SECONDS),
        and ConfigurationError after a failure that a repetition cannot cure.
        """
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
            # A function without arguments, because stamina's hooks may log the arguments.
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
    """The reason why a request failed, as a sentence for people."""
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
    """Send all documents, and yield the result of each request. If `server` is None, send nothing.

    A thread reads and encodes the next request while the server works on this one, so the memory
    holds two bodies at most. Exceptions of Server.send and of reading end it.
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
    """Group documents into requests of at most `batch`, counting those that cannot be sent."""
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
    # The body contains the lines; keeping them in the documents too would double the memory.
    return Request(
        body, tuple(msgspec.structs.replace(document, line=b"") for document in sent), tuple(unfit)
    )


def _outcome(request: Request, answer: Answer) -> Outcome:
    """Assign the errors of the answer, which are by line, to the rows of the file."""
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
    """Whether to repeat a request: False for never, the seconds of Retry-After, or True."""
    if response.status_code not in RETRIED:
        return False
    wanted = response.headers.get("Retry-After", "")
    return min(float(wanted), PATIENCE_SECONDS) or True if wanted.isdecimal() else True
