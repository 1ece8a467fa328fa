"""POST /index/search by vector: the true k best, the filters, the answer's form."""

from typing import Any

import numpy as np
import pytest

from tests.conftest import Client, document


async def fill(client: Client, *bodies: dict[str, Any]) -> None:
    for body in bodies:
        response = await client.post("/index/upsert", json=body)
        assert response.status_code == 200, response.text


async def search(client: Client, **body: Any) -> dict[str, Any]:
    response = await client.post("/index/search", json={"namespace": "notes", **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def ids(client: Client, **body: Any) -> list[str]:
    return [result["chunk_id"] for result in (await search(client, **body))["results"]]


async def test_upsert_and_search_roundtrip(client: Client) -> None:
    await fill(client, document("A", [1, 0.1, 0]), document("B", [0, 1, 0.1]))
    first, second = (await search(client, embedding=[1, 0, 0]))["results"]
    assert (first["doc_id"], second["doc_id"]) == ("A", "B")
    assert first["score"] > second["score"]


async def test_a_result_has_every_field_of_the_contract(client: Client) -> None:
    await fill(
        client,
        document(
            "a",
            [3, 4],
            texts=["Ein Abschnitt"],
            metas=[{"tags": ["project/infra"], "n": 1}],
            source_ref={"origin": "docs", "id": "README.md"},
            ingested_at="2026-01-01T00:00:00Z",
        ),
    )
    answer = await search(client, embedding=[6, 8], filters={"tags": ["project"]})
    assert answer["mode"] == "vector"
    assert answer["budget_ms"] == 60
    assert answer["degraded"] == []
    assert answer["latency_ms"] > 0
    [result] = answer["results"]
    assert result.pop("score") == pytest.approx(1.0)
    assert result == {
        "doc_id": "a",
        "chunk_id": "a#0",
        "namespace": "notes",
        "snippet": "Ein Abschnitt",
        "rationale": ["Tag match: project", "Vector cosine: 1.00"],
        "text": "Ein Abschnitt",
        "document_meta": {},
        "highlights": [],
        "version": 1,
        "meta": {"tags": ["project/infra"], "n": 1},
        "source_ref": {
            "origin": "docs",
            "id": "README.md",
            "offset": None,
            "trust_level": None,
            "injected_by": None,
        },
        "ingested_at": "2026-01-01T00:00:00Z",
    }


@pytest.mark.slow
async def test_order_and_scores_are_those_of_numpy(
    client: Client, rng: np.random.Generator
) -> None:
    vectors = rng.normal(size=(300, 24)).astype(np.float32)
    lines = [document(f"d{n:03}", vector) for n, vector in enumerate(vectors)]
    await fill(client, *lines)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for query in rng.normal(size=(5, 24)):
        cosine = unit @ (query / np.linalg.norm(query))
        results = (await search(client, embedding=query.tolist(), k=50))["results"]
        assert [r["doc_id"] for r in results] == [f"d{n:03}" for n in np.argsort(-cosine)[:50]]
        assert [r["score"] for r in results] == pytest.approx(np.sort(cosine)[::-1][:50], abs=1e-5)


async def test_ties_go_by_doc_id_then_chunk_id_in_code_point_order(client: Client) -> None:
    for doc_id in ("b", "a", "Z", "ä", "\U0001f600", "\uffee"):
        body = document(doc_id, [1, 0], [1, 0])
        body["chunks"][0]["id"], body["chunks"][1]["id"] = "2", "10"
        await fill(client, body)
    results = (await search(client, embedding=[1, 0], k=100))["results"]
    assert [(r["doc_id"], r["chunk_id"]) for r in results] == [
        (doc_id, chunk_id)
        for doc_id in ("Z", "a", "b", "ä", "\uffee", "\U0001f600")
        for chunk_id in ("10", "2")
    ]


async def test_a_documents_own_half_life_halves_its_score(client: Client) -> None:
    month = 30 * 86400
    await fill(
        client,
        document("kept", [1, 0], ingested_at="2020-01-01T00:00:00Z"),
        document("old", [1, 0], ingested_at="2020-01-01T00:00:00Z", half_life_seconds=month),
        document("future", [1, 0], ingested_at="2999-01-01T00:00:00Z", half_life_seconds=1),
    )
    results = (await search(client, embedding=[1, 0], include_weights=True))["results"]
    assert [r["doc_id"] for r in results] == ["future", "kept", "old"]
    assert [r["score"] for r in results[:2]] == [1, 1]
    assert results[2]["score"] < 1e-20
    assert results[2]["weights"]["similarity"] == pytest.approx(1)
    assert results[2]["weights"]["decay"] == pytest.approx(results[2]["score"])
    assert results[2]["rationale"][1].startswith("Decay: 0.00 (age ")
    assert results[2]["rationale"][1].endswith("half-life 30.0 d)")


@pytest.mark.parametrize("half_life", [1e-300, 5e-324, 1e-9, 1, 1e12, 1.7e308])
async def test_any_half_life_at_any_age_gives_a_number(client: Client, half_life: float) -> None:
    for when in ("0001-01-01T00:00:00Z", "2026-11-01T00:00:00Z", "9999-12-31T23:59:59Z"):
        await fill(
            client,
            document(when, [1, 1e-30], ingested_at=when, half_life_seconds=half_life),
        )
    for query in ([1, 0], [0, 1], [-1, 0]):
        results = (await search(client, embedding=query))["results"]
        assert len(results) == 3
        assert all(abs(r["score"]) <= 1 for r in results)


async def test_an_unknown_namespace_answers_an_empty_list(client: Client) -> None:
    assert (await search(client, namespace="nowhere", embedding=[1, 2]))["results"] == []


async def test_k_is_ten_unless_told_and_lowered_to_the_maximum(client: Client) -> None:
    await fill(client, document("a", *([[1, 0]] * 150)))
    assert len(await ids(client, embedding=[1, 0])) == 10
    assert len(await ids(client, embedding=[1, 0], k=3)) == 3
    assert len(await ids(client, embedding=[1, 0], k=10**30)) == 100


@pytest.mark.parametrize(
    "body",
    [
        {"query": {"text": "x", "meta": {"embedding": [1, 0]}}, "embedding": [0, 1]},
        {"query": "x", "embedding": [1, 0], "meta": {"embedding": [0, 1]}},
        {"query": "x", "meta": {"embedding": [1, 0]}},
        {"embedding": [1, 0]},
    ],
)
async def test_the_first_embedding_present_wins(client: Client, body: dict[str, Any]) -> None:
    await fill(client, document("right", [1, 0]), document("wrong", [0, 1]))
    assert await ids(client, k=1, **body) == ["right#0"]


@pytest.mark.parametrize("empty", [None, [], "zzz"])
@pytest.mark.parametrize("place", ["query", "top", "legacy"])
@pytest.mark.parametrize("mode", ["auto", "lexical"])
async def test_an_embedding_present_but_empty_is_an_error(
    client: Client, place: str, empty: Any, mode: str
) -> None:
    body: dict[str, Any] = {"query": {"text": "x"}, "embedding": [1, 0], "meta": {}, "mode": mode}
    if place == "query":
        body["query"]["meta"] = {"embedding": empty}
    elif place == "top":
        body["embedding"] = empty
    else:
        del body["embedding"]
        body["meta"] = {"embedding": empty}
    response = await client.post("/index/search", json=body)
    assert response.status_code == 400
    assert response.json()["code"] == "invalid_embedding"


class TestFilters:
    @pytest.fixture(autouse=True)
    async def _corpus(self, client: Client) -> None:
        await fill(
            client,
            document(
                "a",
                [1, 0],
                metas=[{"tags": ["project/infra"], "source_path": "x.md", "lang": {"de": 1}}],
                source_ref={"origin": "code", "id": "1"},
                ingested_at="2026-01-01T00:00:00Z",
            ),
            document(
                "b",
                [1, 0],
                metas=[{"tags": ["projector", "blog"], "source_path": "y.md", "lang": "de"}],
                source_ref={"origin": "docs", "id": "2"},
                ingested_at="2026-01-02T00:00:00Z",
            ),
            document("c", [1, 0], ingested_at="2026-01-03T00:00:00Z"),
            document("a", [1, 0], namespace="other", metas=[{"tags": ["project"]}]),
        )

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({}, "abc"),
            (None, "abc"),
            ({"tags": ["project"]}, "a"),
            ({"tags": ["project/infra"]}, "a"),
            ({"tags": ["project/inf"]}, ""),
            ({"tags": ["nothing", "blog"]}, "b"),
            ({"source_path": "x.md"}, "a"),
            ({"source_path": ["x.md", "y.md"]}, "ab"),
            ({"doc_id": "c"}, "c"),
            ({"doc_id": ["a", "c", "nope"]}, "ac"),
            ({"source_ref_origin": "docs"}, "b"),
            ({"source_ref_origin": ["docs", "code"]}, "ab"),
            ({"ingested_after": "2026-01-01T00:00:00Z"}, "bc"),
            ({"ingested_before": "2026-01-02T01:00:00+01:00"}, "a"),
            ({"meta": {"lang": "de"}}, "b"),
            ({"meta": {"lang": {"de": 1}}}, "a"),
            ({"meta": {}}, "abc"),
            ({"tags": ["blog"], "source_path": "x.md"}, ""),
            ({"tags": ["blog"], "source_ref_origin": "docs", "meta": {"lang": "de"}}, "b"),
        ],
    )
    async def test_a_filter_keeps_what_matches(
        self, client: Client, filters: Any, expected: str
    ) -> None:
        found = await ids(client, embedding=[1, 0], filters=filters)
        assert found == [f"{doc_id}#0" for doc_id in expected]

    @pytest.mark.parametrize("mode", ["vector", "lexical"])
    @pytest.mark.parametrize(
        "filters",
        [
            {"tags": []},
            {"tags": "project"},
            {"tags": [""]},
            {"doc_id": []},
            {"source_path": [1]},
            {"ingested_after": "2026-01-01"},
            {"ingested_before": "yesterday"},
            {"meta": []},
            [],
        ],
    )
    async def test_a_wrong_filter_is_refused(self, client: Client, filters: Any, mode: str) -> None:
        body = {"query": "x", "embedding": [1, 0], "mode": mode, "filters": filters}
        response = await client.post("/index/search", json=body)
        assert response.status_code == 400
        assert response.json()["code"] == "invalid_field"


async def test_a_snippet_is_the_start_of_the_text_cut_at_a_word(client: Client) -> None:
    text = "Wort " * 100
    await fill(
        client,
        document("own", [1, 0], texts=["long"], metas=[{"snippet": "s" * 300}]),
        document("text", [1, 0], texts=[text]),
    )
    own, cut = (await search(client, embedding=[1, 0]))["results"]
    assert own["snippet"] == "s" * 240
    assert cut["snippet"] == ("Wort " * 48).rstrip()
    assert cut["text"] == text


@pytest.mark.parametrize("text", ["x" * 500, "\n\n" + "x" * 500, "w " + "x" * 500])
async def test_a_snippet_of_a_long_word_is_its_start(client: Client, text: str) -> None:
    await fill(client, document("long", [1, 0], texts=[text]))
    [hit] = (await search(client, embedding=[1, 0]))["results"]
    assert hit["snippet"] == text.strip()[:240]
