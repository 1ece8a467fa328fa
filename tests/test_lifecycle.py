"""One document: what is stored of it, and what will become of it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from indexd.app import create_app
from indexd.settings import Settings
from tests.conftest import Client, document

NOW = datetime(2026, 1, 11, tzinfo=UTC)


@pytest.fixture
async def aging(settings: Settings, tmp_path: Path) -> AsyncIterator[Client]:
    file = tmp_path / "policies.yaml"
    file.write_text(
        """
        namespaces:
          notes: {half_life_seconds: 864000, max_age_seconds: 8640000}
          full: {max_items: 2, purge_strategy: oldest}
          eternal: {max_age_seconds: 1.0e+300}
        """
    )
    changed = Settings(database_url=settings.database_url, policies=str(file), pool_size=4)
    app = create_app(changed, now=lambda: NOW)
    async with Client(app) as client:
        yield client


async def lifecycle(client: Client, namespace: str, doc_id: str) -> dict[str, Any]:
    params = {"namespace": namespace, "doc_id": doc_id}
    answer = await client.get("/index/lifecycle", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_document_knows_its_age_its_decay_and_its_end(aging: Client) -> None:
    body = document("docs/a b.md", [1, 0], ingested_at="2026-01-01T00:00:00Z")
    await aging.post("/index/upsert", json=body)
    assert await lifecycle(aging, "notes", "docs/a b.md") == {
        "doc_id": "docs/a b.md",
        "namespace": "notes",
        "ingested_at": "2026-01-01T00:00:00Z",
        "age_seconds": 864000.0,
        "half_life_seconds": 864000.0,
        "decay_factor": 0.5,
        "relevance": 1.0,
        "irrelevant_since": None,
        "purge_rank": None,
        "expires_at": None,
        "would_be_forgotten": {"reason": "ttl", "at": "2026-04-11T00:00:00Z"},
    }


async def test_the_purge_rank_is_the_place_in_the_order_of_leaving(
    aging: Client, settings: Settings
) -> None:
    for day in (3, 1, 2):
        body = document(
            f"d{day}", [1, 0], namespace="full", ingested_at=f"2026-01-0{day}T00:00:00Z"
        )
        await aging.post("/index/upsert", json=body)
    found = [await lifecycle(aging, "full", doc_id) for doc_id in ("d2", "d3")]
    assert [one["purge_rank"] for one in found] == [1, 2]
    assert [one["would_be_forgotten"] for one in found] == [None, None]


async def test_an_end_beyond_time_is_none(aging: Client) -> None:
    await aging.post("/index/upsert", json=document("a", [1, 0], namespace="eternal"))
    assert (await lifecycle(aging, "eternal", "a"))["would_be_forgotten"] is None


async def test_a_document_is_answered_with_its_chunks(client: Client) -> None:
    body = document(
        "a",
        [3, 4],
        [0, 1],
        texts=["one", "two"],
        metas=[{"tags": ["x"]}, {}],
        meta={"title": "A"},
        source_ref={"origin": "docs", "id": "README.md", "offset": "line:4"},
        half_life_seconds=60,
        ingested_at="2026-01-01T00:00:00Z",
    )
    await client.post("/index/upsert", json=body)
    params = {"namespace": "notes", "doc_id": "a"}
    told = (await client.get("/index/document", params=params)).json()
    assert told.pop("created_at") > "2026"
    assert told == {
        "version": 1,
        "tags": ["x"],
        "doc_id": "a",
        "namespace": "notes",
        "ingested_at": "2026-01-01T00:00:00Z",
        "expires_at": None,
        "half_life_seconds": 60.0,
        "meta": {"title": "A"},
        "source_ref": {
            "origin": "docs",
            "id": "README.md",
            "offset": "line:4",
            "trust_level": None,
            "injected_by": None,
        },
        "chunks": [
            {
                "id": "a#0",
                "chunk_id": "a#0",
                "text": "one",
                "meta": {"tags": ["x"]},
                "embedding": None,
            },
            {"id": "a#1", "chunk_id": "a#1", "text": "two", "meta": {}, "embedding": None},
        ],
    }
    with_vectors = (await client.get("/index/document", params=params | {"vectors": "true"})).json()
    assert with_vectors["chunks"][0]["embedding"] == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("path", ["/index/document", "/index/lifecycle"])
async def test_an_unknown_document_is_404_and_a_bad_question_400(client: Client, path: str) -> None:
    answer = await client.get(path, params={"namespace": "notes", "doc_id": "none"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    for params in (
        {},
        {"doc_id": ""},
        {"doc_id": "x" * 513},
        {"doc_id": "a", "namespace": "n" * 129},
    ):
        assert (await client.get(path, params=params)).status_code == 400
