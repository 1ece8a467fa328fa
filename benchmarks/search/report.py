"""The tables and the plot of `searching`."""

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import msgspec

from benchmarks.harness import print_table
from benchmarks.search.plot import plot
from benchmarks.search.results import AtSize, Crowd, Upserts


def show(found: AtSize) -> str:
    """Print the tables of one size, and return them."""
    title = f"{found.chunks:,} chunks"
    parts = []
    if found.half_lives:
        parts.append(print_table(f"{title}, by half-life", *half_life_table(found)))
    if found.filtered:
        parts.append(print_table(f"{title}, filtered", *filter_table(found)))
    if found.crowd:
        parts.append(print_table(f"{title}, eight clients at once", *crowd_table(found.crowd)))
    if found.upserts:
        parts.append(print_table(f"{title}, upsert of one document", *upsert_table(found.upserts)))
    built = (
        f"Index built in {found.built:.0f} s"
        if found.built > 1
        else "Index built in an earlier run"
    )
    parts.append(
        f"{found.queries} queries. {built}, {found.index_bytes / 2**20:.0f} MB; ef {found.ef}. "
        f"Load average {found.load_before:.1f} before, {found.load_after:.1f} after.\n"
    )
    print(parts[-1], flush=True)
    return "\n".join(parts)


Table = tuple[Sequence[str], Sequence[Sequence[object]]]


def half_life_table(found: AtSize) -> Table:
    head = (
        *("half-life", "recall@10", "p50 / p95 ms", "rows scored"),
        *("bare HNSW ms", "exact scan ms", "exact / indexd", "over-fetch recall@10", "its p50 ms"),
    )
    return head, [
        (
            *(one.name, f"{one.recall:.4f}", one.http, f"{one.scored:,.0f}"),
            *(one.bare, one.exact, f"{one.exact.p50 / one.http.p50:.1f}"),
            *(f"{one.overfetch_recall:.3f}", f"{one.overfetch.p50:.1f}"),
        )
        for one in found.half_lives
    ]


def filter_table(found: AtSize) -> Table:
    head = ("filter", "keeps", "half-life", "recall@10", "p50 / p95 ms", "exact scan ms")
    return head, [
        (
            *(one.kind, f"{one.share:.1%}", one.half_life, f"{one.recall:.4f}"),
            *(one.http, one.exact),
        )
        for one in found.filtered
    ]


def crowd_table(crowd: Crowd) -> Table:
    return ("what", "requests / s", "ratio", "target"), [
        ("bare statement, psycopg threads", f"{crowd.bare:.0f}", "", ""),
        ("over HTTP", f"{crowd.http:.0f}", f"{crowd.http / crowd.bare:.2f}", "0.6"),
        ("server's CPU per request, ms", f"{crowd.cpu_ms:.2f}", "", "0.6"),
    ]


def upsert_table(upserts: Upserts) -> Table:
    ratio = upserts.indexed.p50 / upserts.empty.p50
    return ("into", "p50 / p95 ms", "ratio of p50", "target"), [
        ("an empty namespace", upserts.empty, "", ""),
        ("the indexed one", upserts.indexed, f"{ratio:.1f}", "3"),
    ]


def growth_table(found: Sequence[AtSize]) -> Table:
    """p50 by size, and how much it grew from the smallest to the largest."""
    sizes = [f"{one.chunks:,}" for one in found]
    grown = found[-1].chunks / found[0].chunks
    rows = []
    for same in zip(*(one.half_lives for one in found), strict=True):
        growth = same[-1].http.p50 / same[0].http.p50
        exact = same[-1].exact.p50 / same[0].exact.p50
        rows.append(
            (
                same[0].name,
                *(f"{one.http.p50:.1f}" for one in same),
                f"{growth:.1f}",
                f"{exact:.1f}",
            )
        )
    return ("half-life", *sizes, f"grown (size: {grown:.1f})", "exact scan grown"), rows


def report(found: Sequence[AtSize], out: Path | None) -> None:
    """Print what sizes have in common; write all of it into the folder, with a plot.

    What an earlier run left in the folder is kept beside what this one measured.
    """
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "search-benchmark.json"
    sizes = {one.chunks: one for one in _earlier(kept)}
    sizes |= {one.chunks: _completed(one, sizes.get(one.chunks)) for one in found}
    every = [sizes[chunks] for chunks in sorted(sizes)]
    kept.write_bytes(msgspec.json.format(msgspec.json.encode(every)))
    compared = [one for one in every if one.half_lives]
    growth = print_table("p50 in ms over HTTP, by size", *growth_table(compared))
    head = (
        f"# Search: measured\n\n"
        f"Written by `make bench` on {date.today():%Y-%m-%d}: {os.cpu_count()} cores, "  # noqa: DTZ011 (a day is enough)
        f"{every[0].versions}. What the method is, [decay.md](decay.md) tells.\n\n"
        "![p50 and p95, recall, and growth](search-benchmark.png)\n"
    )
    parts = [head, NOTES, growth, *(show(one) for one in reversed(every))]
    (out / "search-benchmark.md").write_text("\n".join(parts))
    plot(compared, out / "search-benchmark.png")


def _completed(one: AtSize, earlier: AtSize | None) -> AtSize:
    """With what this run was not asked to measure (`--only`) as an earlier one did."""
    if earlier is None:
        return one
    parts = ("half_lives", "filtered", "crowd", "upserts")
    missing = {part: getattr(earlier, part) for part in parts if not getattr(one, part)}
    return msgspec.structs.replace(one, **missing)


def _earlier(file: Path) -> list[AtSize]:
    return msgspec.json.decode(file.read_bytes(), type=list[AtSize]) if file.exists() else []


NOTES = """\
The corpus is 40,000 commit messages of 2005 to 2026 with vectors of 384 dimensions; larger ones
are made of jittered copies (cosine to the origin about 0.92, moved by up to 30 days, seeded),
loaded by COPY in time order as a real corpus arrives. k is 10. Recall is against numpy's brute
force in float64, ties aside.

- **p50 / p95** is over HTTP, from one client on a kept-alive socket, against an `indexd serve`
  process; the other columns are statements in psycopg, in turn with it.
- **bare HNSW** is `ORDER BY ... LIMIT 10` by the same index and ef, blind to decay.
- **exact scan** scores every chunk under decay. **Over-fetch** re-ranks the 100 most similar.
- The index was built by the keeper on a connection with `maintenance_work_mem` of 3 GB.
- The eight clients are one thread over raw sockets with bodies encoded beforehand, and for the
  bare statement eight psycopg threads, each in a process of its own; clients, server and
  PostgreSQL share the cores.
- Under each size stands the machine's load average. Where that is above the number of cores, others
  were at work: the times are longer than on a quiet machine, and what is next to each other in a
  row was measured in turn.
"""
