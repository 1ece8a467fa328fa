"""A field that a route does not have is refused, with the nearest one that it has."""

import json
from typing import Any

import pytest

from tests.conftest import Client, Sql, document

DOCUMENT = document("d", [1, 0])
SEARCH = {"namespace": "notes", "embedding": [1, 0]}
FORGET = {"filter": {"namespace": "notes", "doc_id": "d"}, "reason": "r", "confirm": True}
EMBED = {"text": "a", "namespace": "docs", "source_ref": "r"}


def with_field(body: dict[str, Any], path: str, value: object = 1) -> dict[str, Any]:
    """The body with one more field, at a path such as `chunks.0.vector`."""
    changed: Any = json.loads(json.dumps(body))
    *inside, name = path.split(".")
    place = changed
    for step in inside:
        place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
    place[name] = value
    return changed  # type: ignore[no-any-return]


BODIES = {
    "/index/upsert": DOCUMENT | {"source_ref": {"origin": "o", "id": "i"}},
    "/index/delete": {"doc_id": "d", "namespace": "notes"},
    "/index/search": SEARCH,
    "/index/related": {"doc_id": "d", "namespace": "notes"},
    "/index/forget": FORGET,
    "/index/retention/preview": {"namespace": "notes"},
    "/index/decay/preview": {"namespace": "notes"},
    "/index/feedback": {"doc_id": "d", "namespace": "notes", "useful": True},
    "/embed/text": EMBED,
}

MISSPELT = [
    ("/index/upsert", "docid", "doc_id"),
    ("/index/upsert", "name_space", "namespace"),
    ("/index/upsert", "collection", "namespace"),
    ("/index/upsert", "chunk", "chunks"),
    ("/index/upsert", "metadata", "meta"),
    ("/index/upsert", "sourceRef", "source_ref"),
    ("/index/upsert", "half_life", "half_life_seconds"),
    ("/index/upsert", "halflife_seconds", "half_life_seconds"),
    ("/index/upsert", "ingested", "ingested_at"),
    ("/index/upsert", "ingestedAt", "ingested_at"),
    ("/index/upsert", "model", "embedding_model"),
    ("/index/upsert", "chunks.0.vector", "embedding"),
    ("/index/upsert", "chunks.0.embeddings", "embedding"),
    ("/index/upsert", "chunks.0.txt", "text"),
    ("/index/upsert", "chunks.0.content", "text"),
    ("/index/upsert", "chunks.0.chunkid", "chunk_id"),
    ("/index/upsert", "chunks.0.metadata", "meta"),
    ("/index/upsert", "source_ref.orign", "origin"),
    ("/index/upsert", "source_ref.trust", "trust_level"),
    ("/index/upsert", "source_ref.injectedBy", "injected_by"),
    ("/index/delete", "docId", "doc_id"),
    ("/index/delete", "id", "doc_id"),
    ("/index/search", "fliters", "filters"),
    ("/index/search", "top_k", "k"),
    ("/index/search", "limit", "k"),
    ("/index/search", "vector", "embedding"),
    ("/index/search", "includeWeights", "include_weights"),
    ("/index/search", "modus", "mode"),
    ("/index/search", "where", "filters"),
    ("/index/search", "query.txt", "text"),
    ("/index/search", "filters.tag", "tags"),
    ("/index/search", "filters.path", "source_path"),
    ("/index/search", "filters.ingested_since", "ingested_after"),
    ("/index/search", "filter.tag", "tags"),
    ("/index/related", "n_results", "k"),
    ("/index/related", "doc", "doc_id"),
    ("/index/forget", "filters", "filter"),
    ("/index/forget", "dryrun", "dry_run"),
    ("/index/forget", "confirmed", "confirm"),
    ("/index/forget", "filter.older", "older_than"),
    ("/index/forget", "filter.tag", "tags"),
    ("/index/forget", "filter.allow_wipe", "allow_namespace_wipe"),
    ("/index/retention/preview", "policies", "policy"),
    ("/index/retention/preview", "policy.max_item", "max_items"),
    ("/index/decay/preview", "halflife", "half_life_seconds"),
    ("/index/feedback", "usefull", "useful"),
    ("/embed/text", "txt", "text"),
]


@pytest.mark.parametrize(("path", "field", "meant"), MISSPELT)
async def test_a_misspelt_field_is_refused_with_the_nearest_one(
    client: Client, sql: Sql, path: str, field: str, meant: str
) -> None:
    await client.post("/index/upsert", json=DOCUMENT)
    before = sql("SELECT doc_id, digest FROM indexd.documents")
    answer = await client.post(path, json=with_field(BODIES[path], field))
    told = answer.json()
    assert (answer.status_code, told["code"]) == (400, "unknown_field")
    shown = field.replace(".0.", "[0].")
    assert told["error"].startswith(f"{shown}: unknown field, expected ")
    assert told["hint"] == f"did you mean {meant}?"
    assert sql("SELECT doc_id, digest FROM indexd.documents") == before


@pytest.mark.parametrize("path", BODIES)
async def test_what_resembles_nothing_is_refused_too(client: Client, path: str) -> None:
    answer = await client.post(path, json=with_field(BODIES[path], "zzzz"))
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_field")
    assert answer.json()["hint"] == "leave it out"


async def test_a_line_of_a_bulk_with_an_unknown_field_is_an_error_of_that_line(
    client: Client, sql: Sql
) -> None:
    lines = [document("a", [1, 0]), document("b", [1, 0]) | {"tag": "x"}, document("c", [1, 0])]
    answer = await client.post(
        "/index/bulk",
        content="\n".join(map(json.dumps, lines)),
        headers={"Content-Type": "application/x-ndjson"},
    )
    told = answer.json()
    assert (told["accepted"], told["failed"]) == (2, 1)
    [error] = told["errors"]
    assert (error["line"], error["doc_id"], error["code"]) == (2, "b", "unknown_field")
    assert sql("SELECT doc_id FROM indexd.documents ORDER BY doc_id") == [("a",), ("c",)]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/index/upsert", "meta.anything"),
        ("/index/upsert", "chunks.0.meta.anything"),
        ("/index/search", "query.meta.anything"),
        ("/index/search", "meta.anything"),
        ("/index/search", "filters.meta.anything"),
    ],
)
async def test_free_form_objects_may_hold_anything(client: Client, path: str, field: str) -> None:
    answer = await client.post(path, json=with_field(BODIES[path], field))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("/index/document?doc_id=d&name_space=notes", "namespace"),
        ("/index/document?doc_id=d&vector=true", "vectors"),
        ("/index/lifecycle?doc_id=d&ns=notes", "namespace"),
        ("/index/audit?limits=3", "limit"),
        ("/index/irrelevant?namespaces=notes", "namespace"),
    ],
)
async def test_an_unknown_query_parameter_is_refused_with_the_nearest_one(
    client: Client, target: str, meant: str
) -> None:
    answer = await client.get(target)
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_field")
    assert answer.json()["hint"] == f"did you mean {meant}?"


@pytest.mark.parametrize("target", ["/index/stats", "/index/retention", "/metrics", "/readyz"])
async def test_routes_without_query_parameters_take_none(client: Client, target: str) -> None:
    answer = await client.get(f"{target}?verbose=true")
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_field")


async def test_a_query_parameter_may_stand_there_once(client: Client) -> None:
    answer = await client.get("/index/document?doc_id=a&doc_id=b")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")


async def test_filter_means_filters_and_both_are_refused(client: Client) -> None:
    await client.post("/index/upsert", json=document("a", [1, 0], metas=[{"tags": ["x"]}]))
    await client.post("/index/upsert", json=document("b", [1, 0]))
    for name in ("filter", "filters"):
        answer = await client.post("/index/search", json=SEARCH | {name: {"tags": ["x"]}})
        assert [hit["doc_id"] for hit in answer.json()["results"]] == ["a"]
    both = SEARCH | {"filter": {"tags": ["x"]}, "filters": {"tags": ["x"]}}
    answer = await client.post("/index/search", json=both)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")
