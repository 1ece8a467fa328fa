"""`indexd push`, against a server of this file's own that keeps what the real one would."""

import io
import runpy
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

from indexd import cli
from indexd.cli import push as push_command
from indexd.push import documents, rows, send

GITLOG = Path(__file__).parents[2] / "shared/data/gitlog.parquet"

Record = dict[str, Any]


class FakeIndexd(ThreadingHTTPServer):
    """Keeps upserts by namespace and doc_id, refuses those whose doc_id says so."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kept: dict[tuple[str, str], Record] = {}
        self.bodies: list[bytes] = []
        self.headers: list[Any] = []
        self.troubles: list[tuple[int, dict[str, str]] | None] = []
        """What the next requests are answered instead; None breaks the connection off."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def take(self, body: bytes) -> Record:
        answer: Record = {"accepted": 0, "unchanged": 0, "chunks": 0, "failed": 0, "errors": []}
        for number, line in enumerate(body.splitlines(), 1):
            document = msgspec.json.decode(line)
            key = document["namespace"], document["doc_id"]
            if "refuse" in document["doc_id"]:
                answer["failed"] += 1
                error = {"line": number, "doc_id": key[1], "code": "no", "error": "not liked"}
                answer["errors"] = [*answer["errors"], error][:100]
                continue
            answer["accepted"] += 1
            answer["chunks"] += len(document["chunks"])
            answer["unchanged"] += self.kept.get(key) == document
            self.kept[key] = document
        return answer


class _Handler(BaseHTTPRequestHandler):
    server: FakeIndexd
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/index/bulk"
        self.server.bodies.append(body)
        self.server.headers.append(self.headers)
        if not self.server.troubles:
            self._answer(200, {}, self.server.take(body))
        elif trouble := self.server.troubles.pop(0):
            self._answer(*trouble, {"error": "in trouble", "code": "trouble"})
        else:
            self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str], answer: Record) -> None:
        encoded = msgspec.json.encode(answer)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(encoded))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read standard error."""


class Result(NamedTuple):
    exit_code: int
    out: str
    err: str


Push = Callable[..., Result]


@pytest.fixture
def fake() -> Iterator[FakeIndexd]:
    with FakeIndexd() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=4, cap=True):
        yield


@pytest.fixture
def push(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Push:
    """Runs `indexd push` on these rows, or on the file given instead."""

    def run(what: Path | pa.Table | Sequence[Record], *options: str) -> Result:
        path = what if isinstance(what, Path) else written(what, tmp_path / "rows.parquet")
        monkeypatch.setattr("sys.argv", ["indexd", "push", str(path), *options])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        assert isinstance(exited.value.code, int)
        return Result(exited.value.code, *capsys.readouterr())

    return run


def written(what: pa.Table | Sequence[Record], path: Path) -> Path:
    table = what if isinstance(what, pa.Table) else table_of(what)
    pq.write_table(table, path)
    return path


def table_of(records: Sequence[Record]) -> pa.Table:
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    given: dict[str, pa.DataType] = {"embedding": pa.list_(pa.float32())}
    return pa.table({name: pa.array(of, given.get(name)) for name, of in columns.items()})


def row(doc_id: str | None = "d", **others: Any) -> Record:
    return {"doc_id": doc_id, "embedding": [0.5, 1.0], **others}


def in_memory(table: pa.Table) -> pq.ParquetFile:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return pq.ParquetFile(buffer)


def only(fake: FakeIndexd) -> Record:
    [document] = fake.kept.values()
    return document


def test_a_row_becomes_the_document_it_names(fake: FakeIndexd, push: Push) -> None:
    result = push([row("note", namespace="docs", id="note#0", text="Hallo")], "--url", fake.url)
    assert only(fake) == {
        "namespace": "docs",
        "doc_id": "note",
        "chunks": [{"id": "note#0", "text": "Hallo", "embedding": [0.5, 1.0]}],
    }
    assert result.exit_code == 0


def test_the_body_is_ndjson(fake: FakeIndexd, push: Push) -> None:
    push([row("a"), row("b")], "--url", fake.url)
    assert fake.headers[0]["Content-Type"] == "application/x-ndjson"
    assert len(fake.bodies[0].split(b"\n")) == 2


def test_embeddings_arrive_bit_for_bit(fake: FakeIndexd, push: Push) -> None:
    bits = np.random.default_rng(7).integers(0, 2**32, (400, 64), dtype=np.uint32)
    vectors = np.where(np.isfinite(bits.view(np.float32)), bits.view(np.float32), np.float32(0))
    vectors[0, :4] = [1e-45, np.finfo(np.float32).max, -0.0, np.finfo(np.float32).tiny]
    push([row(f"{n:03}", embedding=list(v)) for n, v in enumerate(vectors)], "--url", fake.url)
    arrived = np.array(
        [fake.kept["vault", f"{n:03}"]["chunks"][0]["embedding"] for n in range(len(vectors))]
    ).astype(np.float32)
    assert (arrived.view(np.uint32) == vectors.view(np.uint32)).all()


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float16()),
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 2),
        pa.list_(pa.int8()),
    ],
    ids=str,
)
def test_any_list_of_numbers_is_an_embedding(
    kind: pa.DataType, fake: FakeIndexd, push: Push
) -> None:
    vectors = pa.array(np.array([[1, 2], [3, 4]]).tolist(), pa.list_(pa.int64())).cast(kind)
    push(pa.table({"doc_id": ["a", "b"], "embedding": vectors}), "--url", fake.url)
    assert [d["chunks"][0]["embedding"] for d in fake.kept.values()] == [[1, 2], [3, 4]]


def test_a_row_without_an_embedding_among_fixed_size_ones_moves_no_other(
    fake: FakeIndexd, push: Push
) -> None:
    vectors = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.float32(), 2))
    table = pa.table({"doc_id": ["a", "b", "c"], "text": ["x", "y", "z"], "embedding": vectors})
    push(table, "--url", fake.url)
    chunks = [document["chunks"][0] for document in fake.kept.values()]
    assert [chunk.get("embedding") for chunk in chunks] == [[1, 2], None, [3, 4]]
    assert "embedding" not in chunks[1]


def test_rows_of_a_document_become_its_chunks(fake: FakeIndexd, push: Push) -> None:
    push([row("d", id="b"), row("d", id="a"), row("e", id="c")], "--url", fake.url)
    assert [chunk["id"] for chunk in fake.kept["vault", "d"]["chunks"]] == ["b", "a"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "vault", " vault ", "docs"]),
            st.sampled_from(["a", "b", "c", None]),
            st.booleans(),
        ),
        max_size=30,
    ),
    st.integers(1, 8),
)
def test_every_document_is_sent_once_with_all_its_rows_in_order(
    placed: list[tuple[str | None, str | None, bool]], batch: int
) -> None:
    file = in_memory(
        pa.table(
            {
                "namespace": pa.array([namespace for namespace, _, _ in placed], pa.string()),
                "doc_id": pa.array([doc_id for _, doc_id, _ in placed], pa.string()),
                "text": pa.array(["" if is_bad else "x" for _, _, is_bad in placed], pa.string()),
            }
        )
    )
    expected: dict[tuple[str, str], list[int]] = {}
    nameless = sha256(b"x").hexdigest()
    for number, (namespace, doc_id, is_bad) in enumerate(placed, 1):
        if doc_id or not is_bad:
            key = (namespace or "vault").strip(), doc_id or nameless
            expected.setdefault(key, []).append(number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "BATCH_ROWS", batch)
        found = [document for document in documents.read(file) if document.doc_id]
    assert {(d.namespace, d.doc_id): list(d.rows) for d in found} == expected
    assert len(found) == len(expected)


@given(st.lists(st.sampled_from([None, "x", "x#2", "d#0", "d#1", "d#2", "d#1#2"]), min_size=1))
def test_chunk_ids_are_unique_within_a_document(ids: list[str | None]) -> None:
    file = in_memory(
        pa.table(
            {
                "doc_id": pa.array(["d"] * len(ids)),
                "id": pa.array(ids, pa.string()),
                "text": pa.array(["x"] * len(ids)),
            }
        )
    )
    [document] = documents.read(file)
    chunks = msgspec.json.decode(document.line)["chunks"]
    stored = [chunk.get("id", f"d#{place}") for place, chunk in enumerate(chunks)]
    assert len(set(stored)) == len(ids)
    assert {chunk_id for chunk_id in ids if chunk_id} <= set(stored)


def test_a_missing_doc_id_is_the_path_then_the_id_then_a_hash_of_the_text(
    fake: FakeIndexd, push: Push
) -> None:
    push(
        [
            row(None, path="a.md", id="a", text="one"),
            row(None, id="b", text="two"),
            row("", chunk_id="c", text="three"),
            row(None, text="four"),
        ],
        "--url",
        fake.url,
    )
    expected = ["a.md", "b", "c", sha256(b"four").hexdigest()]
    assert [doc_id for _, doc_id in fake.kept] == expected


def test_integers_may_be_ids(fake: FakeIndexd, push: Push) -> None:
    push(pa.table({"doc_id": [7], "id": [8], "text": ["x"]}), "--url", fake.url)
    assert only(fake)["doc_id"] == "7"
    assert only(fake)["chunks"][0]["id"] == "8"


def test_the_namespace_is_the_column_and_where_it_says_nothing_vault(
    fake: FakeIndexd, push: Push
) -> None:
    push([row(namespace=name) for name in ("docs", None, " ", " code ")], "--url", fake.url)
    assert [namespace for namespace, _ in fake.kept] == ["docs", "vault", "code"]


def test_without_a_column_the_namespace_is_vault(fake: FakeIndexd, push: Push) -> None:
    push([row()], "--url", fake.url)
    assert only(fake)["namespace"] == "vault"


def test_the_option_namespace_overrides_the_column(fake: FakeIndexd, push: Push) -> None:
    push([row(namespace="docs")], "--url", fake.url, "--namespace", "chronik")
    assert only(fake)["namespace"] == "chronik"


def test_other_columns_go_into_meta_as_json(fake: FakeIndexd, push: Push) -> None:
    table = pa.table(
        {
            "doc_id": ["d"],
            "text": ["x"],
            "path": ["notes/a.md"],
            "tags": [["project/infra"]],
            "lang": pa.array(["de"]).dictionary_encode(),
            "size": [12],
            "share": [float("nan")],
            "day": [date(2026, 1, 2)],
            "at": pa.array([1_700_000_000_000_000_001], pa.timestamp("ns", "Europe/Berlin")),
            "place": [{"line": 3, "of": [1.5, None]}],
            "pairs": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
            "__index_level_0__": [99],
        }
    )
    push(table, "--url", fake.url)
    assert only(fake)["chunks"][0]["meta"] == {
        "source_path": "notes/a.md",
        "tags": ["project/infra"],
        "lang": "de",
        "size": 12,
        "share": None,
        "day": "2026-01-02",
        "at": "2023-11-14T22:13:20Z",
        "place": {"line": 3, "of": [1.5, None]},
        "pairs": {"a": 1},
    }


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([datetime(2026, 1, 1, 12, tzinfo=UTC)]), "2026-01-01T12:00:00Z"),
        (pa.array([1_767_265_200_000], pa.timestamp("ms")), "2026-01-01T11:00:00Z"),
        (pa.array([1_767_265_200], pa.timestamp("s", "Asia/Tokyo")), "2026-01-01T11:00:00Z"),
        (pa.array(["2026-01-01T13:00:00+01:00"]), "2026-01-01T13:00:00+01:00"),
        (pa.array([""]), None),
    ],
)
def test_ingested_at_is_a_timestamp_or_a_text(
    column: "pa.Array[Any]", expected: str | None, fake: FakeIndexd, push: Push
) -> None:
    push(pa.table({"doc_id": ["d"], "text": ["x"], "ingested_at": column}), "--url", fake.url)
    assert only(fake).get("ingested_at") == expected


@pytest.mark.parametrize(
    ("source_ref", "expected"),
    [
        ({"origin": "docs", "id": "a", "offset": None}, {"origin": "docs", "id": "a"}),
        ('{"origin": "docs", "id": "a"}', {"origin": "docs", "id": "a"}),
        ({"origin": None, "id": None}, None),
        ("", None),
        ("null", None),
    ],
)
def test_source_ref_is_a_struct_or_json(
    source_ref: Any, expected: Record | None, fake: FakeIndexd, push: Push
) -> None:
    push([row(source_ref=source_ref)], "--url", fake.url)
    assert only(fake).get("source_ref") == expected


def test_a_documents_own_fields_come_from_its_first_row_that_has_them(
    fake: FakeIndexd, push: Push
) -> None:
    push([row(half_life_seconds=of) for of in (None, 60.5, 70.5)], "--url", fake.url)
    assert only(fake)["half_life_seconds"] == 60.5


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"embedding": None}, "there is neither an embedding nor a text"),
        ({"embedding": None, "text": ""}, "there is neither an embedding nor a text"),
        ({"embedding": []}, "embedding: is empty"),
        ({"embedding": [0.0, 0.0]}, "embedding: is all zero"),
        ({"embedding": [1.0, float("nan")]}, "embedding: holds null"),
        ({"embedding": [1.0, None]}, "embedding: holds null"),
        ({"embedding": [1.0, float("inf")]}, "embedding: holds null"),
        ({"text": 5}, "text: expected a text, got int"),
        ({"half_life_seconds": 0.0}, "half_life_seconds: expected a positive"),
        ({"half_life_seconds": "1 d"}, "half_life_seconds: expected a number"),
        ({"ingested_at": "2026-01-01"}, "ingested_at: expected"),
        ({"ingested_at": "2026-01-01T00:00:00"}, "ingested_at: expected"),
        ({"source_ref": '{"origin": "docs"}'}, "source_ref:"),
        ({"source_ref": "docs"}, "source_ref:"),
        ({"tags": "infra"}, "tags: expected a list of texts"),
        ({"tags": [1]}, "tags: expected a list of texts"),
        ({"image": b"\x89PNG"}, "image: holds bytes"),
        ({"image": [{"of": b"\x89PNG"}]}, "image: holds bytes"),
        ({"path": 1.5}, "path: expected a text"),
    ],
)
def test_a_bad_row_is_named_and_the_others_arrive(
    bad: Record, why: str, fake: FakeIndexd, push: Push
) -> None:
    result = push([row("before"), row("bad") | bad, row("after")], "--url", fake.url)
    assert [doc_id for _, doc_id in fake.kept] == ["before", "after"]
    assert f"failed: row 2 (bad): {why}" in result.err
    assert "1 failed with 1 rows" in result.out
    assert result.exit_code == 1


def test_an_embedding_that_overflows_float32_is_a_bad_row(fake: FakeIndexd, push: Push) -> None:
    table = pa.table({"doc_id": ["a", "b"], "embedding": [[1e39], [1.0]]})
    result = push(table, "--url", fake.url)
    assert "failed: row 1 (a): embedding:" in result.err
    assert list(fake.kept) == [("vault", "b")]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**50, 0], pa.timestamp("ms")),
        pa.StringArray.from_buffers(
            2, pa.py_buffer(np.array([0, 1, 2], np.int32).tobytes()), pa.py_buffer(b"\xffx")
        ),
    ],
    ids=["a time beyond the year 9999", "not UTF-8"],
)
def test_a_value_python_cannot_hold_is_a_bad_row(
    column: "pa.Array[Any]", fake: FakeIndexd, push: Push
) -> None:
    table = pa.table({"doc_id": ["a", "b"], "text": ["x", "y"], "odd": column})
    result = push(table, "--url", fake.url)
    assert "failed: row 1 (a): odd: holds a value that cannot be read" in result.err
    assert list(fake.kept) == [("vault", "b")]


def test_a_row_that_nothing_names_is_a_bad_row(fake: FakeIndexd, push: Push) -> None:
    result = push([row(None), row("d")], "--url", fake.url)
    assert "failed: row 1: there is no doc_id" in result.err
    assert list(fake.kept) == [("vault", "d")]


def test_a_document_with_a_bad_row_is_not_sent_in_part(fake: FakeIndexd, push: Push) -> None:
    bad = row("d", embedding=[])
    result = push([row("d"), row("d"), bad, row("d"), row("e")], "--url", fake.url)
    assert list(fake.kept) == [("vault", "e")]
    assert "failed: row 3 (d): embedding: is empty" in result.err
    assert "failed: rows 1-2, 4 (d): not sent" in result.err
    assert "1 failed with 4 rows" in result.out


def test_what_the_server_refuses_is_named_by_its_rows(fake: FakeIndexd, push: Push) -> None:
    refused = [row("refuse me", id=str(n)) for n in range(2)]
    result = push([row("a"), row("b"), *refused, row("c")], "--url", fake.url, "--batch", "2")
    assert "failed: rows 3-4 (refuse me): not liked" in result.err
    assert "4 documents: 3 accepted, 0 of them unchanged; 1 failed with 2 rows" in result.out
    assert result.exit_code == 1


def test_failures_the_server_does_not_list_are_counted(fake: FakeIndexd, push: Push) -> None:
    result = push([row(f"refuse {n}") for n in range(103)] + [row("a")], "--url", fake.url)
    assert "failed: 3 more documents of rows 1 to 104" in result.err
    assert "103 failed with 103 rows" in result.out


def test_a_second_push_is_reported_as_unchanged(fake: FakeIndexd, push: Push) -> None:
    both = [push([row("a"), row("b")], "--url", fake.url) for _ in range(2)]
    assert "2 rows in 2 documents: 2 accepted, 0 of them unchanged; 0 failed" in both[0].out
    assert "2 rows in 2 documents: 2 accepted, 2 of them unchanged; 0 failed" in both[1].out
    assert both[1].exit_code == 0


@pytest.mark.parametrize(
    "trouble",
    [(503, {"Retry-After": "1"}), (429, {"Retry-After": "30"}), (502, {}), None],
    ids=["503", "429", "502", "connection lost"],
)
def test_a_request_that_can_still_succeed_is_sent_again(
    trouble: tuple[int, dict[str, str]] | None, fake: FakeIndexd, push: Push
) -> None:
    fake.troubles = [trouble, trouble]
    result = push([row("a")], "--url", fake.url)
    assert len(fake.bodies) == 3
    assert len(set(fake.bodies)) == 1
    assert "trying again" in result.err
    assert result.exit_code == 0


@pytest.mark.parametrize(("said", "wait"), [("7", 7.0), ("0", True), ("soon", True)])
def test_the_server_says_when_to_ask_again(said: str, wait: float) -> None:
    assert send.retry_after(httpx.Response(503, headers={"Retry-After": said})) == wait


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500])
def test_a_request_that_would_fail_again_is_not_sent_again(
    status: int, fake: FakeIndexd, push: Push
) -> None:
    fake.troubles = [(status, {})]
    result = push([row("a")], "--url", fake.url)
    assert len(fake.bodies) == 1
    assert result.err == f"indexd: {fake.url}/index/bulk answered {status}: in trouble\n"
    assert result.exit_code == 1


def test_a_push_that_stops_says_how_far_it_came(fake: FakeIndexd, push: Push) -> None:
    taken = fake.take

    def once(body: bytes) -> Record:
        fake.troubles = [(403, {})]
        return taken(body)

    fake.take = once  # type: ignore[method-assign]
    result = push([row("a"), row("b"), row("c")], "--url", fake.url, "--batch", "1")
    assert result.out.startswith("stopped after 1 rows in 1 documents: 1 accepted")
    assert result.exit_code == 1


def test_something_else_that_answers_is_not_taken_for_indexd(fake: FakeIndexd, push: Push) -> None:
    fake.take = lambda body: {"hello": "world"}  # type: ignore[method-assign]
    result = push([row("a")], "--url", fake.url)
    assert result.err == f"indexd: what answers at {fake.url}/index/bulk is not indexd\n"


def test_an_answer_that_does_not_account_for_all_documents_is_an_error(
    fake: FakeIndexd, push: Push
) -> None:
    taken = fake.take
    fake.take = lambda body: taken(b"")  # type: ignore[method-assign]
    result = push([row("a")], "--url", fake.url)
    assert "1 documents were sent" in result.err
    assert result.exit_code == 1


def test_the_key_goes_into_the_header(
    fake: FakeIndexd, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    push([row()], "--url", fake.url)
    monkeypatch.setenv("INDEXD_API_KEY", "from-the-environment")
    push([row()], "--url", fake.url)
    push([row()], "--url", fake.url, "--key", "given")
    assert [headers["Authorization"] for headers in fake.headers] == [
        None,
        "Bearer from-the-environment",
        "Bearer given",
    ]


def test_a_password_in_the_url_is_used_and_never_printed(fake: FakeIndexd, push: Push) -> None:
    url = fake.url.replace("//", "//admin:sesame@")
    fake.troubles = [(503, {}), (400, {})]
    results = [push([row()], "--url", url), push([row()], "--url", url, "--dry-run")]
    assert fake.headers[0]["Authorization"].startswith("Basic ")
    assert "sesame" not in str(results)


def test_a_request_holds_at_most_batch_documents(fake: FakeIndexd, push: Push) -> None:
    push([row(str(n)) for n in range(7)], "--url", fake.url, "--batch", "3")
    assert [len(body.splitlines()) for body in fake.bodies] == [3, 3, 1]


def test_a_request_is_closed_when_it_is_large(
    fake: FakeIndexd, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "REQUEST_BYTES", 1000)
    push([row(str(n), text="x" * 400) for n in range(7)], "--url", fake.url)
    assert [len(body.splitlines()) for body in fake.bodies] == [3, 3, 1]


def test_the_next_request_is_made_while_one_is_under_way() -> None:
    made = threading.Event()

    def found() -> Iterator[documents.Document]:
        yield documents.Document("vault", "a", (1,), line=b"{}")
        made.set()
        yield documents.Document("vault", "b", (2,), line=b"{}")

    class Slow(send.Server):
        def send(self, body: bytes) -> send.Answer:
            assert made.wait(10)
            return send.Answer(accepted=1, unchanged=0, chunks=1, failed=0, errors=[])

    with Slow("http://localhost") as slow:
        assert len(list(send.push(found(), slow, batch=1))) == 2


def test_a_dry_run_sends_nothing_and_says_what_it_would(fake: FakeIndexd, push: Push) -> None:
    records = [row("a", namespace="docs"), row("b", namespace="docs"), row("c")]
    result = push(records, "--url", fake.url, "--dry-run")
    assert fake.bodies == []
    assert f"would send 3 of 3 rows to {fake.url}/index/bulk in 1 requests" in result.out
    assert "2 into docs, 1 into vault" in result.out
    assert result.exit_code == 0


def test_a_dry_run_names_bad_rows(push: Push) -> None:
    result = push([row("a"), row("b", embedding=[])], "--dry-run")
    assert "failed: row 2 (b): embedding: is empty" in result.err
    assert "would send 1 of 2 rows" in result.out
    assert result.exit_code == 1


def test_a_missing_file_is_one_line(push: Push, tmp_path: Path) -> None:
    result = push(tmp_path / "none.parquet")
    assert result == (1, "", f"indexd: {tmp_path}/none.parquet: there is no such file\n")


def test_the_default_file_is_that_of_the_embedder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["indexd", "push"])
    with pytest.raises(SystemExit):
        cli.main()
    assert ".gewebe/embeddings.parquet: there is no such file" in capsys.readouterr().err


def test_a_file_that_is_not_parquet_is_one_line(push: Push, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("doc_id,text\na,b\n" * 100)
    result = push(path)
    assert result.err.startswith(f"indexd: {path}: not a parquet file")
    assert result.err.count("\n") == 1
    assert result.exit_code == 1


def test_a_folder_is_not_a_parquet_file(push: Push, tmp_path: Path) -> None:
    assert "not a parquet file" in push(tmp_path).err


def test_a_damaged_file_is_one_line(fake: FakeIndexd, push: Push, tmp_path: Path) -> None:
    path = written([row(str(n), text=f"{n}" * 50) for n in range(5000)], tmp_path / "bad.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : len(content) // 2] = b"\xff" * (
        len(content) // 2 - len(content) // 4
    )
    path.write_bytes(content)
    result = push(path, "--url", fake.url)
    assert result.err.startswith("indexd: the file is damaged: ")
    assert result.err.count("\n") == 1
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (pa.table({"doc_id": ["a"]}), "expected a column embedding or a column text"),
        (pa.table({"embedding": ["[1, 2]"]}), "embedding: expected lists of numbers, got string"),
        (pa.table({"embedding": [["a"]]}), "embedding: expected lists of numbers, got list"),
    ],
)
def test_a_file_without_anything_to_push_is_one_line(table: pa.Table, why: str, push: Push) -> None:
    result = push(table)
    assert why in result.err
    assert result.err.count("\n") == 1
    assert result.exit_code == 1


def test_a_server_that_cannot_be_reached_is_said(push: Push, fake: FakeIndexd) -> None:
    fake.shutdown()
    fake.server_close()
    result = push([row()], "--url", fake.url)
    last = result.err.splitlines()[-1]
    assert last.startswith(f"indexd: {fake.url}/index/bulk cannot be reached: ")
    assert result.out == ""
    assert result.exit_code == 1


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "http://", "http://[::1"])
def test_a_url_that_is_none_is_one_line(url: str, push: Push) -> None:
    result = push([row()], "--url", url)
    assert result.err.startswith("indexd: --url: ")
    assert result.err.count("\n") == 1


def test_a_url_may_have_a_path() -> None:
    assert str(send.bulk_url("https://example.org/memory/")) == (
        "https://example.org/memory/index/bulk"
    )


def test_progress_is_lines_without_a_terminal(
    fake: FakeIndexd, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_command, "LINE_SECONDS", 0)
    result = push([row("a"), row("b")], "--url", fake.url, "--batch", "1")
    first, second = result.err.splitlines()
    assert first.startswith("1 of 2 rows, ")
    assert second.startswith("2 of 2 rows, ")


def test_progress_is_a_bar_on_a_terminal(
    fake: FakeIndexd, push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    result = push([row("a"), row("b", embedding=[])], "--url", fake.url)
    assert "2/2" in result.err
    assert "rows/s" in result.err
    assert "failed: row 2 (b): embedding: is empty" in result.err


@pytest.mark.slow
def test_memory_does_not_grow_with_the_row_group(tmp_path: Path) -> None:
    vectors = np.random.default_rng(3).random(20_000 * 256, np.float32)
    table = pa.table(
        {
            "doc_id": [str(number) for number in range(20_000)],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors), 256),
        }
    )
    path = tmp_path / "large.parquet"
    pq.write_table(table, path, row_group_size=20_000)
    del table
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in documents.read(rows.open_file(path)))
    assert most < vectors.nbytes / 3


@pytest.mark.slow
@pytest.mark.skipif(not GITLOG.exists(), reason="the real corpus ../shared is not here")
def test_all_of_the_real_corpus_arrives(fake: FakeIndexd, push: Push) -> None:
    result = push(GITLOG, "--url", fake.url)
    table = pq.read_table(GITLOG)
    kept = [fake.kept["chronik", str(doc_id)] for doc_id in table["doc_id"].to_pylist()]
    sent = np.array([document["chunks"][0]["embedding"] for document in kept], np.float32)
    stored = pc.list_flatten(table["embedding"]).to_numpy()
    assert (sent.ravel().view(np.uint32) == stored.view(np.uint32)).all()
    assert "40,000 rows in 40,000 documents: 40,000 accepted" in result.out
    assert result.exit_code == 0


def test_the_script_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = Path(__file__).parents[1] / "scripts/push_index.py"
    monkeypatch.setattr("sys.argv", [str(script), str(tmp_path / "none.parquet")])
    with pytest.raises(SystemExit):
        runpy.run_path(str(script), run_name="__main__")
    assert "none.parquet: there is no such file" in capsys.readouterr().err
