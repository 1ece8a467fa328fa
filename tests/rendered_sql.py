"""The statements as they are sent: `python -m tests.rendered_sql` writes them into tests/sql/.

A reviewer sees a changed statement as SQL, and a DBA finds what pg_stat_statements shows.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

from indexd import store
from indexd.policy import Policy, Semantic
from indexd.store import facets, indexes, library
from indexd.store.facets import FacetsAsked, Field
from indexd.store.filters import Filters
from indexd.store.forgetting import forget, plans, purge_rank, retention
from indexd.store.forgetting.forget import Condition
from indexd.store.indexes import Namespace, Rules
from indexd.store.library import Page, Wanted
from indexd.store.search import statements, terms, words
from indexd.store.where.tree import parse
from indexd.store.writing import chunk_rows, update

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "sql"
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
BY_WHERE = Filters(where=parse({"field": "meta.lang", "op": "ne", "value": "de"}), unexpired_at=AT)
FACETS = FacetsAsked(
    [Field("tags"), Field("meta", ("lang",)), Field("ingested_at")], ALL, 10, 1_000
)
NAME = re.compile(r"\s*/\* indexd:([a-z_.]+) \*/")
OLDEST = Policy(max_items=10, purge_strategy="oldest")
LOWEST_SCORE = Policy(max_items=10, purge_strategy="lowest_score")
SEMANTIC = Policy(max_items=10, purge_strategy="lowest_score", semantic=Semantic(0.5))


def rendered() -> dict[str, str]:
    """Each statement by the name of its file."""
    constant, built = dict(constants()), searches() | others()
    assert not constant.keys() & built.keys()
    return constant | built


def constants() -> Iterator[tuple[str, str]]:
    """The statements that are a constant of a module of the store, by their names."""
    for module in pkgutil.walk_packages(store.__path__, "indexd.store."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, str) and (name := NAME.match(value)):
                yield name[1], value


def others() -> dict[str, str]:
    """The statements that functions build, but for those of a search."""
    namespace = Namespace("notes", DIMENSION, 50_000, "auto", ())
    rules = Rules(threshold=10_000, limit=10, worn_share=0.2, m=16, ef_construction=64)
    return {
        "forgetting.retention.surplus-oldest": retention.surplus_of(OLDEST),
        "forgetting.retention.surplus-lowest_score": retention.surplus_of(LOWEST_SCORE),
        "forgetting.retention.surplus-semantic": retention.surplus_of(SEMANTIC),
        "forgetting.purge_rank-oldest": purge_rank.statement(OLDEST),
        "forgetting.purge_rank-lowest_score": purge_rank.statement(LOWEST_SCORE),
        "forgetting.purge_rank-semantic": purge_rank.statement(SEMANTIC),
        "library.by_ids": library.by_ids_statement(Wanted(True, True, 1, AT)),
        "library.chunks": library.chunks_statement(vectors=False),
        "library.chunks-vectors": library.chunks_statement(vectors=True),
        "library.page": library.page_statement(
            Page("created_at", True, 100, ("", "")), ALL, Wanted(False, False, 1, AT)
        ),
        "forgetting.forget.lock": forget.lock_statement(Condition()),
        "forgetting.forget.still_condemned": forget.still_condemned_statement(Condition()),
        "forgetting.plans.insert_documents": plans.insert_documents(Condition()),
        "library.count": library.count_statement(Filters()),
        "facets.count": facets.count_statement(Filters()),
        "facets.values": facets.facets_statement(FACETS, sampled=True),
        "writing.update.lock": update.find_statement(ALL, lock=True),
        "writing.update.find": update.find_statement(ALL, lock=False),
        "writing.update.change": update.change_statement(
            update.DocumentChange({}, ["a"], AT, 60.0)
        ),
        "writing.upsert.insert_whole": chunk_rows.insert_whole_statement(2),
        "writing.upsert.insert_chunks": chunk_rows.insert_chunks_statement(2),
        "indexes.build": indexes.build_statement(namespace, rules),
        "indexes.comment": indexes.comment_statement(namespace),
        "indexes.rebuild": indexes.rebuild_statement(namespace),
        "indexes.drop": indexes.drop_statement(namespace.wanted),
    }


def searches() -> dict[str, str]:
    """The statements that a search builds."""
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
        "search.sample": statements.sample(BY_WHERE),
        "search.words": words.keys(none),
        "search.words-filtered": words.keys(ALL, similar=True, unweighed=True),
        "search.words-per-document": words.keys(none, per_document=True),
        "search.terms": terms.counting(stored=False, at_once=False),
        "search.terms-at-once": terms.counting(stored=False, at_once=True),
        "search.terms-stored": terms.counting(stored=True, at_once=False),
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
