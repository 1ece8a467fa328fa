"""Health, metrics, logs, the OpenAPI document and its page."""

import json
from typing import Any

from indexd.app import create_app
from indexd.settings import Settings
from tests.conftest import Client, document


async def test_healthz_answers_ok_without_a_database() -> None:
    nowhere = Settings(
        database_url="postgresql://nobody@127.0.0.1:1/none", pool_timeout_seconds=0.2
    )
    async with Client(create_app(nowhere)) as client:
        response = await client.get("/healthz")
        assert (response.status_code, response.text) == (200, "ok")
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.headers["retry-after"]
        assert ready.text.startswith("database: failed")
        for route, body in (
            ("/index/search", {"query": "x"}),
            ("/index/delete", {"doc_id": "a"}),
        ):
            answer = await client.post(route, json=body)
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert answer.json()["code"] == "database_unavailable"
        assert "index_queries_total" in (await client.get("/metrics")).text


async def test_readyz_has_a_line_per_check(client: Client) -> None:
    response = await client.get("/readyz")
    assert response.status_code == 200
    assert [line.partition(":")[0] for line in response.text.splitlines()] == [
        "database",
        "extension",
        "schema",
        "writes",
        "embedder",
        "budget",
    ]


async def test_readyz_names_the_command_where_the_schema_is_old(
    own_client: Client, clone: Any
) -> None:
    clone.execute("UPDATE indexd.alembic_version SET version_num = '0001'")
    clone.commit()
    response = await own_client.get("/readyz")
    assert response.status_code == 503
    assert "indexd db upgrade" in response.text


async def test_metrics_count_searches_and_documents(own_client: Client) -> None:
    await own_client.post("/index/upsert", json=document("a", [1, 0]))
    await own_client.post("/index/upsert", json=document("b", [1, 0]))
    await own_client.post("/index/search", json={"namespace": "notes", "embedding": [1, 0]})
    await own_client.post("/index/search", json={"namespace": "notes", "embedding": []})
    await own_client.post("/index/delete", json={"doc_id": "a", "namespace": "notes"})
    await own_client.post("/index/delete", json={"doc_id": "a", "namespace": "notes"})
    response = await own_client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        "index_queries_total 1.0",
        "index_query_duration_seconds_count 1.0",
        'index_items_total{namespace="notes"} 1.0',
        'index_items_forgotten_total{namespace="notes",reason="manual"} 1.0',
    ):
        assert line in response.text.splitlines()
    assert 'index_query_duration_seconds_bucket{le="0.06"}' in response.text


async def test_stats_count_by_namespace(client: Client) -> None:
    await client.post(
        "/index/upsert", json=document("a", [1, 0], [0, 1], ingested_at="2026-01-01T00:00:00Z")
    )
    await client.post("/index/upsert", json=document("b", [1, 0, 0], namespace="other"))
    stats = (await client.get("/index/stats")).json()
    assert (stats["total_documents"], stats["total_chunks"]) == (2, 3)
    assert stats["namespaces"] == {"notes": 1, "other": 1}
    details = stats["details"]["notes"]
    assert details.pop("bytes") > 0
    assert details == {
        "documents": 1,
        "chunks": 2,
        "expired": 0,
        "dimension": 2,
        "words_counted_at": None,
        "index": "exact",
        "index_progress": None,
        "index_note": None,
        "oldest": "2026-01-01T00:00:00Z",
        "newest": "2026-01-01T00:00:00Z",
    }
    assert set(stats["version"]) == {"indexd", "postgres", "pgvector", "schema"}


async def test_a_page_that_there_is_not_is_an_unknown_route(client: Client) -> None:
    for path in ("/schema/no", "/schema/swagger", "/no"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_route"), path


async def test_a_body_over_the_limit_is_a_413(url: str) -> None:
    small = Settings(database_url=url, max_body_bytes=1000)
    async with Client(create_app(small)) as client:
        body = document("a", [1, 0], texts=["x" * 2000])
        response = await client.post("/index/upsert", json=body)
        assert response.status_code == 413
        assert response.json()["code"] == "body_too_large"
        lines = json.dumps(body) + "\n"
        bulk = await client.post(
            "/index/bulk", content=lines, headers={"Content-Type": "application/x-ndjson"}
        )
        assert bulk.json()["accepted"] == 1
