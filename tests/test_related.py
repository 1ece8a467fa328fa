"""Related documents: by the document's own vectors, one place each, never the document itself."""

import numpy as np
import pytest

from tests.conftest import Client, Sql, document


async def related(client: Client, doc_id: str, **rest: object) -> list[dict[str, object]]:
    answer = await client.post(
        "/index/related", json={"doc_id": doc_id, "namespace": "notes", **rest}
    )
    assert answer.status_code == 200, answer.text
    results: list[dict[str, object]] = answer.json()["results"]
    return results


async def upsert(client: Client, body: dict[str, object]) -> None:
    answer = await client.post("/index/upsert", json=body)
    assert answer.status_code == 200, answer.text


async def test_the_mean_of_the_chunks_is_compared(client: Client) -> None:
    await upsert(client, document("both", [1, 0], [0, 1]))
    await upsert(client, document("between", [1, 1]))
    await upsert(client, document("aside", [1, 0.2]))
    found = await related(client, "both", include_weights=True)
    assert [hit["doc_id"] for hit in found] == ["between", "aside"]
    assert found[0]["score"] == pytest.approx(1.0, abs=1e-6)
    assert found[0]["weights"] == pytest.approx({"similarity": 1.0, "decay": 1.0}, abs=1e-6)


async def test_where_the_mean_vanishes_the_first_chunk_is_compared(client: Client) -> None:
    await upsert(client, document("torn", [0, 1], [0, -1]))
    await upsert(client, document("up", [0, 1]))
    await upsert(client, document("down", [0, -1]))
    assert [hit["doc_id"] for hit in await related(client, "torn")] == ["up", "down"]


async def test_a_document_has_one_place_by_its_best_chunk(client: Client) -> None:
    await upsert(client, document("asked", [1, 0]))
    await upsert(client, document("many", [1, 0.1], [1, 0.01], [1, 0.3]))
    await upsert(client, document("one", [1, 0.2]))
    found = await related(client, "asked")
    assert [(hit["doc_id"], hit["chunk_id"]) for hit in found] == [
        ("many", "many#1"),
        ("one", "one#0"),
    ]


async def test_relatives_fade(client: Client) -> None:
    await upsert(client, document("asked", [1, 0]))
    await upsert(
        client,
        document("old", [1, 0], half_life_seconds=3600, ingested_at="2020-01-01T00:00:00Z"),
    )
    await upsert(client, document("new", [1, 1], half_life_seconds=3600))
    assert [hit["doc_id"] for hit in await related(client, "asked")] == ["new", "old"]


async def test_an_unknown_document_is_404(client: Client) -> None:
    await upsert(client, document("here", [1, 0]))
    for body in (
        {"doc_id": "nowhere", "namespace": "notes"},
        {"doc_id": "here", "namespace": "elsewhere"},
        {"doc_id": "here"},
    ):
        answer = await client.post("/index/related", json=body)
        assert answer.status_code == 404
        assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize("body", [{}, {"doc_id": ""}, {"doc_id": 7}, {"doc_id": "a", "k": 0}])
async def test_a_bad_request_is_400(client: Client, body: dict[str, object]) -> None:
    assert (await client.post("/index/related", json=body)).status_code == 400


@pytest.mark.slow
@pytest.mark.parametrize("indexed", [False, True])
async def test_a_document_of_many_chunks_does_not_crowd_out_its_relatives(
    client: Client, sql: Sql, rng: np.random.Generator, indexed: bool
) -> None:
    own = rng.normal([5, 0, 0], 0.1, size=(3_000, 3))
    others = rng.normal([4, 1, 0], 0.5, size=(40, 3))
    await upsert(client, document("big", *own))
    for n, vector in enumerate(others):
        await upsert(client, document(f"d{n:02}", vector))
    if indexed:
        name = "hnsw_" + sql("SELECT left(encode(sha256('notes'), 'hex'), 16)")[0][0] + "_3"
        sql(
            f"CREATE INDEX {name} ON indexd.chunks "
            "USING hnsw ((embedding::halfvec(3)) halfvec_ip_ops) "
            "WHERE namespace = 'notes' AND vector_dims(embedding) = 3"
        )
    try:
        found = await related(client, "big", k=5)
    finally:
        if indexed:
            sql(f"DROP INDEX indexd.{name}")
    mean = own / np.linalg.norm(own, axis=1, keepdims=True)
    centre = mean.mean(axis=0) / np.linalg.norm(mean.mean(axis=0))
    cosines = others @ centre / np.linalg.norm(others, axis=1)
    assert [hit["doc_id"] for hit in found] == [f"d{n:02}" for n in np.argsort(-cosines)[:5]]
