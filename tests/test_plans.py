"""Each arm of a search has its index: what the planner makes of the statements as they are sent."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector
from pytest_postgresql.executors.noop import NoopExecutor

from indexd.background.index_keeper import keep_once
from indexd.store.filters import (
    Filters,
    for_documents,
    may_match,
    of_chunks,
    of_fields,
    parameters,
)
from indexd.store.forgetting.forget import Condition, condemned, condition_values
from indexd.store.indexes import Rules, index_name
from indexd.store.namespaces import facts_values
from indexd.store.search import statements
from indexd.store.search.bounds import NO_HALF_LIFE
from indexd.store.search.costs import Tuning
from indexd.store.where.tree import parse
from tests.conftest import _url

pytestmark = pytest.mark.slow

AT = datetime(2026, 6, 1, tzinfo=UTC)
CHUNKS = 20_000
DIMENSION = 32
HNSW = index_name("large", DIMENSION)
BY_META = {"field": "meta.n", "op": "eq", "value": 7}
BY_TAG = {"field": "tags", "op": "any", "value": ["t7"]}

Explained = dict[str, Any]


@pytest.fixture(scope="module")
async def planner(server: NoopExecutor) -> Any:
    """A database with a large namespace that has an index, and another; settings as users get."""
    where = (server.host, server.port, server.user)
    with psycopg.connect(_url(*where, "postgres"), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE plans TEMPLATE "{server.template_dbname}"')
        async with await psycopg.AsyncConnection.connect(
            _url(*where, "plans"), autocommit=True
        ) as keeper:
            for namespace in ("large", "other"):
                await keeper.execute(
                    """
                    INSERT INTO indexd.namespaces (
                        namespace, dimension, documents, chunks, created_at
                    )
                    VALUES (%(namespace)s, %(dimension)s, %(chunks)s, %(chunks)s, %(at)s)
                    """,
                    {"namespace": namespace, "dimension": DIMENSION, "chunks": CHUNKS, "at": AT},
                )
                await keeper.execute(
                    """
                    INSERT INTO indexd.documents (
                        namespace, doc_id, ingested_at, chunk_count, digest, meta
                    )
                    SELECT %(namespace)s, 'd' || n, %(at)s - n * interval '1 hour', 1, '', '{}'
                      FROM generate_series(1, %(chunks)s) AS n
                    """,
                    {"namespace": namespace, "chunks": CHUNKS, "at": AT},
                )
                await keeper.execute(
                    """
                    INSERT INTO indexd.chunks (
                        namespace, doc_id, ordinal, ingested_at, embedding, chunk_id, source_path,
                        tags, meta, text
                    )
                    SELECT %(namespace)s, 'd' || n, 0, %(at)s - n * interval '1 hour',
                           l2_normalize((
                               SELECT array_agg(random() - 0.5)
                                 FROM generate_series(1, %(dimension)s)
                                WHERE n > 0
                           )::real[]::vector),
                           'd' || n || '#0', 'path/' || n %% 2000, ARRAY['t' || n %% 1000],
                           jsonb_build_object('n', n %% 5000), 'words of chunk ' || n
                      FROM generate_series(1, %(chunks)s) AS n
                    """,
                    {"namespace": namespace, "dimension": DIMENSION, "chunks": CHUNKS, "at": AT},
                )
            await keeper.execute("ANALYZE indexd.namespaces, indexd.documents, indexd.chunk_fields")
            await keep_once(keeper, Rules(CHUNKS, 1, 0.2, 8, 32))
        with psycopg.connect(_url(*where, "plans"), autocommit=True) as opened:
            register_vector(opened)
            opened.execute("SET plan_cache_mode = force_custom_plan")
            opened.execute("SET hnsw.ef_search = 100")
            yield opened
        admin.execute("DROP DATABASE plans WITH (FORCE)")


def explain(planner: psycopg.Connection[Any], statement: str, **more: Any) -> list[Explained]:
    """Every node of the plan, as it ran."""
    filters = more.pop("filters", Filters())
    values = {
        **parameters(filters),
        **facts_values("large", DIMENSION, AT),
        "vector": np.ones(DIMENSION, np.float32) / np.float32(np.sqrt(DIMENSION)),
        "half_life": 86_400.0,
        "k": 10,
        "page": 10,
        "offset": 0,
        "at": AT,
        **more,
    }
    [[[plan]]] = planner.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values).fetchall()
    return list(nodes(plan["Plan"]))


def nodes(node: Explained) -> Iterator[Explained]:
    yield node
    for child in node.get("Plans", ()):
        yield from nodes(child)


def indexes_of(plan: list[Explained]) -> set[str]:
    return {node["Index Name"] for node in plan if "Index Name" in node}


def reads(plan: list[Explained], relation: str = "chunks") -> list[Explained]:
    """What touches the relation without an index."""
    return [
        node
        for node in plan
        if node["Node Type"] == "Seq Scan" and node.get("Relation Name") == relation
    ]


def test_the_nearest_come_by_the_index_and_no_others_are_read(planner: Any) -> None:
    plan = explain(planner, statements.nearest_shortcut(DIMENSION), similar_rows=20)
    assert not reads(plan)
    [arm] = [node for node in plan if node.get("Index Name") == HNSW]
    assert arm["Actual Rows"] == 20


@pytest.mark.parametrize("per_document", [False, True])
def test_each_arm_of_the_probe_reads_its_index_up_to_its_limit(
    planner: Any, per_document: bool
) -> None:
    tuning = Tuning()
    plan = explain(
        planner,
        statements.probe(DIMENSION, Filters(), per_document=per_document),
        similar_rows=100,
        newest_rows=tuning.newest_rows,
    )
    assert not reads(plan)
    [near] = [node for node in plan if node.get("Index Name") == HNSW]
    [newest] = [node for node in plan if node.get("Index Name") == "ix_chunks_ingested_at"]
    assert near["Actual Rows"] == 100
    assert newest["Actual Rows"] == tuning.newest_rows
    classes = [node for node in plan if node.get("Index Name") == "ix_chunks_half_life_class"]
    assert classes
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in classes) < 10


def test_a_filter_does_not_make_the_newest_arm_read_on(planner: Any) -> None:
    filters = Filters(tags=["t7"])
    statement = statements.probe(DIMENSION, filters, per_document=False)
    plan = explain(planner, statement, filters=filters, similar_rows=64, newest_rows=1_000)
    assert not reads(plan)
    [newest] = [node for node in plan if node.get("Index Name") == "ix_chunks_ingested_at"]
    assert newest["Actual Rows"] == 1_000


def test_the_sweep_reads_its_slice_of_its_class(planner: Any) -> None:
    since = AT - timedelta(hours=500)
    plan = explain(
        planner,
        statements.sweep(Filters(), per_document=False),
        floor=-1.0,
        classes=[NO_HALF_LIFE],
        since=[since],
        until=[AT],
    )
    assert not reads(plan)
    assert indexes_of(plan) == {"ix_chunks_half_life_class"}
    [arm] = [node for node in plan if node.get("Relation Name") == "chunks"]
    assert arm["Actual Rows"] == 500


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        (Filters(tags=["t7"]), "ix_chunk_fields_filter_keys"),
        (Filters(source_path=["path/7"]), "ix_chunk_fields_filter_keys"),
        (Filters(meta={"n": 7}), "ix_chunk_fields_meta"),
        (Filters(where=parse(BY_META)), "ix_chunk_fields_meta"),
        (Filters(where=parse({"or": [BY_META, BY_TAG]})), "ix_chunk_fields_filter_keys"),
        (Filters(ingested_after=AT - timedelta(hours=50)), "ix_chunks_ingested_at"),
        (Filters(doc_id=["d7"]), "pk_chunks"),
    ],
)
def test_a_rare_filter_goes_by_its_own_index(planner: Any, filters: Filters, index: str) -> None:
    plan = explain(planner, statements.scan_shortcut(DIMENSION, filters), filters=filters)
    assert index in indexes_of(plan)
    assert not reads(plan)


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        (Filters(tags=["t7"]), "ix_chunk_fields_filter_keys"),
        (Filters(source_path=["path/7"]), "ix_chunk_fields_filter_keys"),
        (Filters(meta={"n": 7}), "ix_chunk_fields_meta"),
    ],
)
def test_a_rare_filter_finds_fields_and_documents_by_its_own_index(
    planner: Any, filters: Filters, index: str
) -> None:
    expected = planner.execute(
        f"SELECT count(*) FROM indexd.chunks WHERE namespace = 'large' AND {of_chunks(filters)}",
        {**parameters(filters), "namespace": "large"},
    ).fetchone()
    for statement in (
        f"SELECT FROM indexd.chunk_fields AS fields WHERE namespace = %(namespace)s "
        f"AND {of_fields(filters)}",
        f"SELECT FROM indexd.chunk_fields AS fields WHERE namespace = %(namespace)s "
        f"AND {may_match(filters)}",
        f"SELECT FROM indexd.documents AS document WHERE namespace = %(namespace)s "
        f"AND {for_documents(filters)}",
    ):
        plan = explain(planner, statement, filters=filters)
        assert index in indexes_of(plan)
        assert not reads(plan, "chunk_fields")
        assert not reads(plan, "documents")
        assert (plan[0]["Actual Rows"],) == expected


def test_a_forget_by_tags_finds_its_documents_by_the_index_of_fields(planner: Any) -> None:
    condition = Condition(namespace="large", tags=["t7"])
    plan = explain(planner, condemned(condition), **condition_values(condition, "large"))
    assert "ix_chunk_fields_filter_keys" in indexes_of(plan)
    assert not reads(plan, "documents")
    assert plan[0]["Actual Rows"] == CHUNKS / 1_000


@pytest.mark.parametrize("filters", [Filters(tags=["t7"]), Filters(source_path=["path/7"])])
def test_what_passes_a_filter_is_estimated_once(planner: Any, filters: Filters) -> None:
    """A key and its value are one thing; the planner multiplies their shares."""
    values = {**parameters(filters), "namespace": "large"}
    [[[plan]]] = planner.execute(
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT FROM indexd.chunk_fields AS fields"
        f" WHERE namespace = %(namespace)s AND {may_match(filters)}",
        values,
    ).fetchall()
    found = plan["Plan"]
    assert found["Actual Rows"] / 4 <= found["Plan Rows"] <= 40 * found["Actual Rows"]


def test_the_planner_knows_the_dimension_of_a_namespace(planner: Any) -> None:
    """Else it takes one chunk in 200 to have it, and sorts them all rather than ask the index."""
    [[[plan]]] = planner.execute(
        "EXPLAIN (FORMAT JSON) SELECT FROM indexd.chunks"
        f" WHERE namespace = 'large' AND vector_dims(embedding) = {DIMENSION}"
    ).fetchall()
    assert plan["Plan"]["Plan Rows"] > CHUNKS / 2
