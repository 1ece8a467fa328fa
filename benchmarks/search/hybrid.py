"""Does hybrid find more than words or meaning alone? On the 200 real queries, by two proxies."""

import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import httpx
import msgspec
import psycopg

from benchmarks import harness
from benchmarks.harness import corpus, embeddings, print_table, quantile_ms, queries

MODES = ("lexical", "vector", "hybrid")
TOP = 10

Relevant = list[set[str]]
"""For each query, the ids of the chunks that count as relevant; empty: the query is left out."""


def run() -> None:
    table, asked = corpus(), queries()
    texts, ids = table["text"].to_pylist(), table["doc_id"].to_pylist()
    areas = [
        family(tags[0].removeprefix("area/")) if tags else None
        for tags in table["tags"].to_pylist()
    ]
    questions = asked["text"].to_pylist()
    judgements: dict[str, Relevant] = {
        "same command": same_command(questions, ids, areas),
        "rare identifier": rare_identifier(questions, ids, texts),
    }
    with harness.postgres() as postgres:
        url = harness.empty_database(postgres, "hybrid")
        with harness.serving(url) as (client, _):
            vectors = [vector.tolist() for vector in embeddings(table)]
            times = table["ingested_at"].to_pylist()
            store(client, "whole", ids, texts, vectors, times)
            store(client, "bare", ids, [without_prefix(text) for text in texts], vectors, times)
            store(client, "fading", ids, texts, vectors, times, half_life_seconds=365 * 86400)
            wait_for_indexes(url, 3)
            asked_vectors = [vector.tolist() for vector in embeddings(asked)]
            quality(client, questions, asked_vectors, judgements)
            latency(client, questions, asked_vectors)


def family(area: str) -> str:
    """`git-send-email`, `builtin/send-email.c`, `send-email.perl` and `send-email` are one."""
    name = re.sub(r"\.(c|h|sh|perl|txt|py|tcl|adoc)$", "", area.lower())
    name = re.sub(r"^(builtin[-/]|git-|contrib/|t/)+", "", name)
    return name.partition("--")[0]


def same_command(questions: list[str], ids: list[str], areas: list[str | None]) -> Relevant:
    """A commit is relevant if its subject begins with the one command that the query names."""
    sizes = Counter(area for area in areas if area)
    relevant: Relevant = []
    for question in questions:
        named = {
            name for name in re.findall(r"git[ -]([a-z][a-z-]+)", question) if sizes[name] >= TOP
        }
        [only] = named if len(named) == 1 else [None]
        relevant.append({i for i, area in zip(ids, areas, strict=True) if only and area == only})
    return relevant


def rare_identifier(questions: list[str], ids: list[str], texts: list[str]) -> Relevant:
    """A commit is relevant if it holds the rarest identifier of the query, in 2 to 30 commits.

    An identifier is what no prose would hold: --an-option, a.config.key, a_function or a file.
    """
    pattern = re.compile(r"--[a-z][a-z-]+|\b[A-Za-z]\w*(?:[._/]\w+)+|\b\w+_\w+\b")
    places: dict[str, set[str]] = {}
    for i, text in zip(ids, texts, strict=True):
        for identifier in pattern.findall(text):
            places.setdefault(identifier, set()).add(i)
    relevant: Relevant = []
    for question in questions:
        found = [places.get(identifier, set()) for identifier in pattern.findall(question)]
        rare = [where for where in found if 2 <= len(where) <= 30]
        relevant.append(min(rare, key=len, default=set()))
    return relevant


def without_prefix(text: str) -> str:
    """The subject without its `area: `, which gives the command away to the words."""
    return re.sub(r"^[\w./-]+: ", "", text)


def store(
    client: httpx.Client,
    namespace: str,
    ids: list[str],
    texts: list[str],
    vectors: list[list[float]],
    times: list[Any],
    **rest: Any,
) -> None:
    for start in range(0, len(ids), 2000):
        part = slice(start, start + 2000)
        lines = [
            {
                "doc_id": doc_id,
                "namespace": namespace,
                "chunks": [{"id": doc_id, "text": text, "embedding": vector}],
                "ingested_at": moment,
                **rest,
            }
            for doc_id, text, vector, moment in zip(
                ids[part], texts[part], vectors[part], times[part], strict=True
            )
        ]
        body = b"\n".join(msgspec.json.encode(line) for line in lines)
        answer = client.post("/index/bulk", content=body, headers=harness.NDJSON).json()
        if answer["failed"]:
            raise SystemExit(f"{namespace}: {answer['errors'][0]}")


def wait_for_indexes(url: str, wanted: int) -> None:
    """Searches shall use what they use where a namespace is this large."""
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            [built] = connection.execute("""
                SELECT count(*)
                  FROM pg_index
                  JOIN pg_class
                    ON pg_class.oid = indexrelid
                 WHERE indisvalid
                   AND relname LIKE 'hnsw%'
            """).fetchone() or (0,)
            if built == wanted:
                break
            time.sleep(1)
        connection.execute("VACUUM ANALYZE indexd.chunks")


def search(client: httpx.Client, namespace: str, mode: str, text: str, vector: list[float]) -> Any:
    body = {"namespace": namespace, "mode": mode, "query": text, "k": TOP}
    if mode != "lexical":
        body["embedding"] = vector
    return client.post("/index/search", json=body).raise_for_status().json()


def quality(
    client: httpx.Client,
    questions: list[str],
    vectors: list[list[float]],
    judgements: dict[str, Relevant],
) -> None:
    rows: list[tuple[object, ...]] = []
    for namespace, shown in (("whole", ""), ("bare", ", prefix hidden from the words")):
        found = {
            mode: [
                [hit["doc_id"] for hit in search(client, namespace, mode, *question)["results"]]
                for question in zip(questions, vectors, strict=True)
            ]
            for mode in MODES
        }
        for proxy, relevant in judgements.items():
            if namespace == "bare" and proxy != "same command":
                continue
            asked = [n for n, wanted in enumerate(relevant) if wanted]
            for mode in MODES:
                judged = [[i in relevant[n] for i in found[mode][n]] for n in asked]
                rows.append((f"{proxy}{shown}", len(asked), mode, *measured(judged)))
    print_table(
        "Relevance of the first ten of 40,000",
        ("relevant is", "queries", "mode", "first is relevant", "precision@10", "MRR@10"),
        rows,
    )


def measured(judged: list[list[bool]]) -> Iterable[str]:
    measures: tuple[Callable[[list[bool]], float], ...] = (
        lambda hits: float(hits[:1] == [True]),
        lambda hits: sum(hits) / TOP,
        lambda hits: next((1 / place for place, hit in enumerate(hits, start=1) if hit), 0.0),
    )
    return [f"{statistics.mean(map(measure, judged)):.3f}" for measure in measures]


def latency(client: httpx.Client, questions: list[str], vectors: list[list[float]]) -> None:
    rows = []
    for namespace, shown in (("whole", "none"), ("fading", "1 year")):
        for mode in MODES:
            took = []
            for question in zip(questions, vectors, strict=True):
                started = time.perf_counter()
                search(client, namespace, mode, *question)
                took.append(time.perf_counter() - started)
            rows.append(
                (shown, mode, f"{quantile_ms(took, 0.5):.1f}", f"{quantile_ms(took, 0.95):.1f}")
            )
    print_table(
        "Latency over HTTP, 40,000 chunks with an HNSW index",
        ("half-life", "mode", "p50 ms", "p95 ms"),
        rows,
    )
