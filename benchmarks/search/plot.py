"""One picture of the search benchmark."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from benchmarks.search.results import AtSize


def plot(found: Sequence[AtSize], file: Path) -> None:
    """Latency and recall by half-life at the largest size, and p50 by size."""
    largest = found[-1].half_lives
    names = [one.name for one in largest]
    figure, (times, recalls, growth) = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")

    for label, series, style in (
        ("exact scan, p50", [one.exact.p50 for one in largest], "k--"),
        ("indexd, p95", [one.http.p95 for one in largest], "C0:"),
        ("indexd, p50", [one.http.p50 for one in largest], "C0-o"),
        ("over-fetch, p50", [one.overfetch.p50 for one in largest], "C1-s"),
        ("bare HNSW, p50", [one.bare.p50 for one in largest], "C2-"),
    ):
        times.plot(names, series, style, label=label)
    times.axhline(60, color="C3", linewidth=0.8, label="budget, 60 ms")
    times.set(yscale="log", xlabel="half-life", ylabel="ms", title=f"{found[-1].chunks:,} chunks")
    times.legend(fontsize="small")

    recalls.plot(names, [one.recall for one in largest], "C0-o", label="indexd")
    recalls.plot(names, [one.overfetch_recall for one in largest], "C1-s", label="over-fetch")
    recalls.set(ylim=(0, 1.05), xlabel="half-life", ylabel="recall@10", title="true top 10 found")
    recalls.legend(fontsize="small")

    sizes = [one.chunks for one in found]
    for place, name in enumerate(names):
        growth.plot(sizes, [one.half_lives[place].http.p50 for one in found], "-o", label=name)
    exact = [one.half_lives[-1].exact.p50 for one in found]
    growth.plot(sizes, exact, "k--", label="exact scan")
    growth.set(xscale="log", yscale="log", xlabel="chunks", ylabel="p50, ms", title="growth")
    growth.legend(fontsize="small")

    figure.savefig(file, dpi=110)
    plt.close(figure)
