"""The statements as they are sent: `python -m tests.rendered_sql` writes them into tests/sql/.

A reviewer sees a changed statement as SQL, and a DBA finds what pg_stat_statements shows.
"""

from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

from indexd.store.filters import Filters
from indexd.store.search import statements

FOLDER = Path(__file__).parent / "sql"
DIMENSION = 384
AT = datetime(2026, 1, 1, tzinfo=UTC)
ALL = Filters(
    tags=["project"],
    source_path=["notes/a.md"],
    doc_id=["a"],
    source_ref_origin=["docs"],
    ingested_after=AT,
    ingested_before=AT,
    meta={"lang": "de"},
)


def rendered() -> dict[str, str]:
    """Each statement by the name of its file."""
    none = Filters()
    return {
        "search.scan": statements.scan(none),
        "search.scan-filtered": statements.scan(ALL),
        "search.scan-per-document": statements.scan(none, per_document=True),
        "search.scan_shortcut": statements.scan_shortcut(DIMENSION, none),
        "search.nearest_shortcut": statements.nearest_shortcut(DIMENSION),
        "search.probe": statements.probe(DIMENSION, none, per_document=False),
        "search.probe-filtered": statements.probe(DIMENSION, ALL, per_document=True),
        "search.sweep": statements.sweep(none, per_document=False),
        "search.rescan": statements.rescan(none, floor=True, per_document=False),
        "search.chosen": statements.chosen(),
        "search.estimate": statements.estimate(ALL),
        "search.words": statements.words(none, "all_words"),
        "search.words_pool": statements.words_pool(none, "any_word"),
        "search.fused": statements.fused(),
        "search.centre": statements.centre(),
    }


def text_of(statement: str) -> str:
    lines = dedent(statement).strip().splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip()) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for file in FOLDER.glob("*.sql"):
        file.unlink()
    for name, statement in rendered().items():
        (FOLDER / f"{name}.sql").write_text(text_of(statement))


if __name__ == "__main__":
    main()
