"""Ollama and an OpenAI-compatible server, as they speak on the wire, with every way to fail."""

import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, get_args

import numpy as np

DIMENSION = 8

# fmt: off
Mode = Literal[
    "works", "error", "hang", "drip", "refused", "closed", "html", "dimension", "fewer", "more",
    "nan", "null", "zero", "unauthorized",
]
# fmt: on

BROKEN: tuple[Mode, ...] = get_args(Mode)[1:]


def vector(text: str, dimension: int = DIMENSION) -> list[float]:
    """The sum of a vector of chance for each word: texts that share words are near."""
    total = np.zeros(dimension)
    for word in text.lower().split():
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8])
        total += np.random.default_rng(seed).normal(size=dimension)
    found: list[float] = (total / np.linalg.norm(total)).tolist()
    return found


class Fake:
    """A server on a port of its own. `texts` are those it was sent, but for the service's probe.

    In the modes that break it, /api/tags and /models go on working, as a server does whose model
    cannot be loaded; `hang`, `refused` and `closed` stop those as well.
    """

    def __init__(self, kind: Literal["ollama", "openai"]) -> None:
        self.kind = kind
        self.mode: Mode = "works"
        self.texts: list[str] = []
        self.batches: list[int] = []
        self.most_at_once = 0
        self.digest = "1b226e2802dbb772b5fc32a58f103ca1804ef7501331012de126ab22f67475ef"
        self.model = "all-minilm"
        self.dimension = DIMENSION
        self.key: str | None = None
        self.refuses: str | None = None
        self.delay = 0.0
        self.fail_once = False
        self.breaks_after: int | None = None
        self.turned = False
        self.lists_models = True
        self.let_go = threading.Event()
        self._running = 0
        self._lock = threading.Lock()
        self._server = self._listen(0)
        self.port: int = self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def become(self, mode: Mode) -> None:
        if (mode == "refused") != (self.mode == "refused"):
            if mode == "refused":
                self.stop()
            else:
                self._server = self._listen(self.port)
        self.mode = mode
        if mode not in ("hang", "drip"):
            self.let_go.set()
            self.let_go = threading.Event()

    def stop(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()

    def _listen(self, port: int) -> ThreadingHTTPServer:
        server = _Server(("127.0.0.1", port), self._handler())
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def _handler(fake) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                """Keep quiet."""

            def do_GET(self) -> None:
                if fake._stalls(self):
                    return
                if self.path == "/api/tags" and fake.kind == "ollama":
                    named = {"name": f"{fake.model}:latest", "model": f"{fake.model}:latest"}
                    fake._send(self, {"models": [named | {"size": 1, "digest": fake.digest}]})
                elif self.path == "/v1/models" and fake.kind == "openai" and fake.lists_models:
                    fake._send(self, {"object": "list", "data": []})
                else:
                    fake._send(self, {"error": "not found"}, 404)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if fake._stalls(self):
                    return
                with fake._lock:
                    fake._running += 1
                    fake.most_at_once = max(fake.most_at_once, fake._running)
                try:
                    fake._embed(self, body["input"], body["model"])
                finally:
                    with fake._lock:
                        fake._running -= 1

        return Handler

    def _stalls(self, to: BaseHTTPRequestHandler) -> bool:
        """Whether this request gets no answer at all."""
        if self.mode == "hang":
            self.let_go.wait(30)
        if self.mode in ("hang", "refused", "closed"):
            to.close_connection = True
            return True
        return False

    def _embed(self, to: BaseHTTPRequestHandler, texts: list[str], model: str) -> None:
        path = {"ollama": "/api/embed", "openai": "/v1/embeddings"}[self.kind]
        if to.path != path:
            self._send(to, {"error": "not found"}, 404)
            return
        wanted = f"Bearer {self.key}" if self.key else None
        if self.mode == "unauthorized" or (wanted and to.headers["Authorization"] != wanted):
            self._send(to, {"error": {"message": "Incorrect API key provided"}}, 401)
            return
        if self.refuses and any(self.refuses in text for text in texts):
            self._send(to, {"error": "the input length exceeds the context length"}, 400)
            return
        if texts != ["indexd"]:
            self.texts += texts
            self.batches.append(len(texts))
        self.let_go.wait(self.delay)
        broken = self.breaks_after is not None and len(self.texts) > self.breaks_after
        if self.mode == "error" or self.fail_once or broken:
            self.fail_once = False
            self._send(to, {"error": "llama runner process has terminated"}, 500)
        elif self.mode == "html":
            self._send(to, "<html><body>It works!</body></html>")
        elif self.mode == "drip":
            self._drip(to)
        else:
            self._send(to, self._answer([self._row(text) for text in texts], model))

    def _row(self, text: str) -> list[Any]:
        row: list[Any] = vector(text, self.dimension + (self.mode == "dimension"))
        if self.turned:
            row.reverse()
        if self.mode == "nan":
            row[1] = float("nan")
        elif self.mode == "null":
            row[1] = None
        elif self.mode == "zero":
            row = [0.0] * len(row)
        return row

    def _answer(self, rows: list[list[Any]], model: str) -> dict[str, Any]:
        if self.mode == "fewer":
            rows = rows[:-1]
        elif self.mode == "more":
            rows = [*rows, rows[0]]
        if self.kind == "ollama":
            return {"model": model, "embeddings": rows, "total_duration": 14143917}
        data = [
            {"object": "embedding", "index": place, "embedding": row}
            for place, row in enumerate(rows)
        ]
        # The order is that of the indexes, not of the list.
        data.reverse()
        usage = {"prompt_tokens": 8, "total_tokens": 8}
        return {"object": "list", "data": data, "model": model, "usage": usage}

    def _send(self, to: BaseHTTPRequestHandler, body: Any, status: int = 200) -> None:
        is_html = isinstance(body, str)
        content = (body if is_html else json.dumps(body)).encode()
        to.send_response(status)
        to.send_header("Content-Type", "text/html" if is_html else "application/json")
        to.send_header("Content-Length", str(len(content)))
        to.end_headers()
        to.wfile.write(content)

    def _drip(self, to: BaseHTTPRequestHandler) -> None:
        """One byte at a time: never silent for long, and never done."""
        to.send_response(200)
        to.send_header("Content-Type", "application/json")
        to.send_header("Content-Length", "100000")
        to.end_headers()
        try:
            while not self.let_go.wait(0.05):
                to.wfile.write(b" ")
        except OSError:
            pass
        to.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what fails here, but not that a client gave up waiting."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def running(kind: Literal["ollama", "openai"]) -> Iterator[Fake]:
    fake = Fake(kind)
    try:
        yield fake
    finally:
        if fake.mode != "refused":
            fake.stop()
