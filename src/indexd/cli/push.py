"""`indexd push`: send a parquet file of embeddings to a running service."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import click
import stamina.instrumentation
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from stamina.instrumentation import RetryDetails

from indexd.cli.text import say
from indexd.errors import IndexdError
from indexd.push import documents, rows, send
from indexd.push.documents import Failure
from indexd.push.send import Counts, Server

DEFAULT_FILE = Path(".gewebe/embeddings.parquet")
DEFAULT_URL = "http://localhost:8080"

LINE_SECONDS = 5.0
"""Seconds between two lines of progress if standard error is not a terminal."""

Show = Callable[[Counts], None]


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=DEFAULT_FILE)
@click.option("--namespace", help="Push all rows here, whatever their column namespace says.")
@click.option("--url", default=DEFAULT_URL, show_default=True, help="Where indexd serves.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=send.BATCH_DOCUMENTS,
    show_default=True,
    help="Documents per request.",
)
@click.option("--dry-run", is_flag=True, help="Read and check everything, send nothing.")
@click.option("--key", envvar="INDEXD_API_KEY", help="API key; INDEXD_API_KEY hides it from ps.")
def push(
    file: Path, namespace: str | None, url: str, batch: int, dry_run: bool, key: str | None
) -> None:
    """Push the rows of FILE, a parquet file (default .gewebe/embeddings.parquet).

    Columns understood are namespace (default vault), doc_id, id or chunk_id, path, text,
    embedding, tags, ingested_at, source_ref and half_life_seconds; all others go into the chunk's
    meta. Rows of one document become its chunks. What is there already is not written again.

    Bad rows are named on standard error and the others pushed; row numbers count from 1. The
    exit code is 0 only if every row arrived.
    """
    source = rows.open_file(file)
    found = documents.read(source, namespace)
    began = time.monotonic()
    counts, namespaces = Counts(), Counter[str]()
    with Server(url, key) as server, _progress(source.metadata.num_rows) as show, _told_retries():
        try:
            for outcome in send.push(found, None if dry_run else server, batch=batch):
                for failure in outcome.failures:
                    say(named(failure), err=True)
                counts += outcome.counts
                namespaces += outcome.namespaces
                show(counts)
        except IndexdError:
            if counts.rows:
                click.echo(f"stopped after {arrived(counts, time.monotonic() - began)}")
            raise
    if dry_run:
        say(would_arrive(counts, namespaces, server.address))
    else:
        click.echo(arrived(counts, time.monotonic() - began))
    sys.exit(1 if counts.failed_rows else 0)


def named(failure: Failure) -> str:
    """One line with the rows that failed, their document, and the reason."""
    if not failure.rows:
        return f"failed: {failure.why}"
    document = "" if failure.doc_id is None else f" ({failure.doc_id})"
    rows_ = "row" if len(failure.rows) == 1 else "rows"
    return f"failed: {rows_} {spans(failure.rows)}{document}: {failure.why}"


def spans(numbers: Iterable[int]) -> str:
    """Sorted numbers as ranges, such as `1-3, 7`."""
    runs = groupby(enumerate(numbers), key=lambda item: item[1] - item[0])
    parts = [[number for _, number in run] for _, run in runs]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in parts)


def arrived(counts: Counts, seconds: float) -> str:
    return (
        f"{counts.rows:,} rows in {counts.documents:,} documents: {counts.accepted:,} accepted, "
        f"{counts.unchanged:,} of them unchanged; {counts.failed:,} failed with "
        f"{counts.failed_rows:,} rows; {seconds:.1f} s, {rate(counts.rows, seconds)}"
    )


def would_arrive(counts: Counts, namespaces: Counter[str], address: str) -> str:
    fit = counts.rows - counts.failed_rows
    into = ", ".join(f"{count:,} into {name}" for name, count in sorted(namespaces.items()))
    return (
        f"would send {fit:,} of {counts.rows:,} rows to {address} in {counts.requests:,} requests, "
        f"{counts.bytes / 1e6:,.1f} MB; documents: {into or 'none'}; "
        f"{counts.failed_rows:,} rows cannot be sent"
    )


def rate(count: int, seconds: float) -> str:
    return f"{count / max(seconds, 1e-9):,.0f} rows/s"


@contextmanager
def _progress(total: int) -> Iterator[Show]:
    """Yield a function that shows the counts so far: as a bar on a terminal, else as lines."""
    console = Console(stderr=True)
    began = time.monotonic()
    if not console.is_terminal:
        yield _lines(total, began)
        return
    bar = Progress(
        TextColumn("pushing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )
    with bar:
        task = bar.add_task("push", total=total, rate="")

        def show(counts: Counts) -> None:
            seconds = time.monotonic() - began
            bar.update(task, completed=counts.rows, rate=rate(counts.rows, seconds))

        yield show


def _lines(total: int, began: float) -> Show:
    last = began

    def show(counts: Counts) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LINE_SECONDS or not counts.rows:
            return
        last = now
        left = (now - began) * (total - counts.rows) / counts.rows
        click.echo(
            f"{counts.rows:,} of {total:,} rows, {rate(counts.rows, now - began)}, "
            f"{left:,.0f} s left",
            err=True,
        )

    return show


@contextmanager
def _told_retries() -> Iterator[None]:
    """Print the reason of each retry to standard error, instead of logging it."""

    def tell(details: RetryDetails) -> None:
        wait = f"trying again in {details.wait_for:.1f} s"
        say(f"{send.reason(details.caused_by)}; {wait}", err=True)

    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([tell])
    try:
        yield
    finally:
        stamina.instrumentation.set_on_retry_hooks(before)
