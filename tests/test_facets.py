"""Facets: the values that documents have, and how many documents have each."""

from typing import Any

import msgspec
import pytest

from indexd.app import create_app
from indexd.settings import Settings
from indexd.store import facets as store
from tests.conftest import Client, Sql, document
from tests.test_library import ask, refused

LATER = "2999-01-01T00:00:00Z"


async def put(client: Client, doc_id: str, *metas: dict[str, Any], **rest: Any) -> None:
    vectors = [[1, n] for n in range(len(metas))]
    body = document(doc_id, *vectors, metas=list(metas)) | rest
    answer = await client.post("/index/upsert", json=body)
    assert answer.status_code == 200, answer.text


async def facet(client: Client, field: Any, **body: Any) -> Any:
    told = await ask(client, "facets", fields=[field], **body)
    [one] = told["facets"].values()
    return one


def counts(told: Any) -> list[tuple[Any, int]]:
    return [(one["value"], one["documents"]) for one in told["values"]]


async def test_a_document_counts_once_for_each_value_of_its_chunks(client: Client) -> None:
    await put(client, "a", {"tags": ["x", "x"]}, {"tags": ["x", "y"]}, meta={"tags": ["own"]})
    await put(client, "b", {"tags": ["y"]})
    await put(client, "c", {})
    told = await facet(client, "tags")
    assert told == {
        "values": [
            {"value": "y", "documents": 2},
            {"value": "own", "documents": 1},
            {"value": "x", "documents": 1},
        ],
        "min": None,
        "max": None,
        "missing": 1,
        "truncated": False,
        "estimated": False,
    }


async def test_meta_is_the_chunks_over_the_documents(client: Client) -> None:
    await put(client, "a", {"lang": "en"}, {}, meta={"lang": "de"})
    await put(client, "b", {"lang": None}, meta={"lang": "de"})
    await put(client, "c", {"lang": ["de", "de", "fr", None]})
    told = await facet(client, "meta.lang")
    assert counts(told) == [("de", 2), ("en", 1), ("fr", 1)]
    assert told["missing"] == 1


async def test_values_come_by_documents_falling_then_by_value(client: Client) -> None:
    metas: list[dict[str, Any]] = [
        {"v": 10},
        {"v": 9},
        {"v": "a!"},
        {"v": "a"},
        {"v": "Z"},
        {"v": "ä"},
        {"v": True},
    ]
    for n, meta in enumerate([*metas, {"v": "a"}]):
        await put(client, f"d{n}", meta)
    told = await facet(client, "meta.v")
    assert counts(told)[0] == ("a", 2)
    assert [value for value, _ in counts(told)] == ["a", 9, 10, "Z", "a!", True, "ä"]
    assert (told["min"], told["max"]) == (9, 10)


async def test_values_that_filters_take_as_equal_are_one(client: Client) -> None:
    same = ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2026-01-01"]
    for n, value in enumerate([1, 1.0, *same, {"k": 1}, {"k": 1.0}, [["z"]], [["z"]]]):
        await put(client, f"d{n}", {"v": value})
    told = await facet(client, "meta.v")
    assert [documents for _, documents in counts(told)] == [3, 2, 2, 2]
    for value, documents in counts(told):
        op = "contains" if isinstance(value, list) else "eq"
        where = {"field": "meta.v", "op": op, "value": value}
        found = await ask(client, "count", filters={"where": where})
        assert found["documents"] == documents
    assert counts(told)[0] == ("2026-01-01", 3)


async def test_numbers_and_times_have_a_least_and_a_greatest(client: Client) -> None:
    await put(client, "a", {"n": -1.5, "t": "2026-01-01T01:00:00+02:00", "both": 3})
    await put(client, "b", {"n": [7, "x"], "t": "2025-06-01", "both": "2025-06-01"})
    await put(client, "c", {"n": "y", "t": "9999-12-31T23:59:59-10:00"})
    told = (await ask(client, "facets", fields=["meta.n", "meta.t", "meta.both"]))["facets"]
    assert (told["meta.n"]["min"], told["meta.n"]["max"]) == (-1.5, 7)
    assert told["meta.t"]["min"] == "2025-06-01T00:00:00Z"
    assert told["meta.t"]["max"].startswith("9999-12-31T23:59:59")
    assert (told["meta.both"]["min"], told["meta.both"]["max"]) == (3, 3)


async def test_fields_of_documents_are_times_numbers_and_texts(client: Client) -> None:
    ref = {"origin": "o", "id": "1", "trust_level": "high"}
    await put(client, "a", {"source_path": "p"}, source_ref=ref, ingested_at="2026-01-01T00:00:00Z")
    await put(client, "b", {}, ingested_at="2026-01-02T00:00:00.25Z")
    await ask(client, "update", doc_ids=["a"], set={"expires_at": LATER})
    names = [
        "doc_id",
        "source_path",
        "source_ref.origin",
        "source_ref.id",
        "source_ref.trust_level",
        "ingested_at",
        "created_at",
        "expires_at",
        "version",
    ]
    told = (await ask(client, "facets", fields=names))["facets"]
    assert list(told) == names
    assert counts(told["doc_id"]) == [("a", 1), ("b", 1)]
    for name, value in (
        ("source_path", "p"),
        ("source_ref.origin", "o"),
        ("source_ref.id", "1"),
        ("source_ref.trust_level", "high"),
        ("expires_at", LATER),
    ):
        assert (counts(told[name]), told[name]["missing"]) == ([(value, 1)], 1)
    assert counts(told["ingested_at"]) == [
        ("2026-01-01T00:00:00Z", 1),
        ("2026-01-02T00:00:00.250000Z", 1),
    ]
    assert told["ingested_at"]["max"] == "2026-01-02T00:00:00.250000Z"
    assert counts(told["version"]) == [(1, 1), (2, 1)]
    assert (told["version"]["min"], told["version"]["max"]) == (1, 2)
    assert told["created_at"]["missing"] == 0


async def test_a_key_with_a_dot_is_named_by_a_list(client: Client) -> None:
    await put(client, "a", {"a.b": 1, "a": {"b": 2}})
    assert counts(await facet(client, ["meta", "a.b"])) == [(1, 1)]
    assert counts(await facet(client, "meta.a.b")) == [(2, 1)]


async def test_filters_and_expiry_choose_the_documents(client: Client) -> None:
    for n in range(4):
        await put(client, f"d{n}", {"n": n, "tags": [f"t{n % 2}"]})
    told = await facet(client, "meta.n", filters={"tags": ["t1"]})
    assert counts(told) == [(1, 1), (3, 1)]
    where = {"field": "meta.n", "op": "lt", "value": 2}
    assert counts(await facet(client, "meta.n", filter={"where": where})) == [(0, 1), (1, 1)]
    await ask(client, "update", doc_ids=["d1"], set={"expires_at": "2026-01-01T00:00:00Z"})
    assert counts(await facet(client, "meta.n", filters={"tags": ["t1"]})) == [(3, 1)]
    nothing = await facet(client, "meta.n", namespace="elsewhere")
    assert (nothing["values"], nothing["missing"], nothing["min"]) == ([], 0, None)


async def test_a_limit_cuts_the_values_and_says_so(client: Client) -> None:
    for n in range(4):
        await put(client, f"d{n}", {"n": n})
    told = await facet(client, "meta.n", limit=3)
    assert (counts(told), told["truncated"]) == ([(0, 1), (1, 1), (2, 1)], True)
    assert (told["min"], told["max"]) == (0, 3)
    assert not (await facet(client, "meta.n", limit=4))["truncated"]


async def test_an_answer_is_bounded(settings: Settings) -> None:
    bounded = msgspec.structs.replace(settings, max_answer_bytes=5_000)
    async with Client(create_app(bounded)) as client:
        for n in range(8):
            await put(client, f"d{n}", {"v": f"{n}" * 1_000})
        told = await facet(client, "meta.v")
    assert len(told["values"]) == 4
    assert told["truncated"]


@pytest.mark.parametrize(
    "fields",
    [
        [],
        None,
        "tags",
        ["tags"] * 2,
        [f"meta.{n}" for n in range(11)],
        ["text"],
        ["chunk_id"],
        ["meta"],
        ["meta."],
        ["tag"],
        [""],
        [[]],
        [1],
        [["meta", 1]],
        ["meta.\0"],
        [["meta", *["a"] * 20]],
    ],
    ids=str,
)
async def test_wrong_fields_are_refused(client: Client, fields: Any) -> None:
    assert await refused(client, "facets", fields=fields) == "invalid_field"


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"limit": "1"}, {"filters": {}, "filter": {}}, {"field": "tags"}]
)
async def test_what_else_is_wrong_is_refused(client: Client, wrong: dict[str, Any]) -> None:
    code = await refused(client, "facets", fields=["tags"], **wrong)
    assert code in ("invalid_field", "unknown_field")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Namespaces of more than 100 documents are looked at in part."""
    monkeypatch.setattr(store, "EXACT", 100)
    monkeypatch.setattr(store, "SAMPLE", 100)


@pytest.mark.usefixtures("small")
async def test_of_many_documents_a_sample_is_told(client: Client, sql: Sql) -> None:
    await put(client, "seed", {})
    sql(
        """
        INSERT INTO indexd.documents (namespace, doc_id, ingested_at, chunk_count, digest, meta)
        SELECT 'notes', 'd' || n, '2026-01-01', 1, '', '{}' FROM generate_series(1, 400) AS n
        """
    )
    sql(
        """
        INSERT INTO indexd.chunk_fields (namespace, doc_id, ordinal, ingested_at, tags, meta)
        SELECT 'notes', 'd' || n, 0, '2026-01-01', '{}',
               CASE n % 4 WHEN 0 THEN '{"v": "rare"}'::jsonb WHEN 1 THEN '{}' ELSE '{"v": "often"}'
               END
          FROM generate_series(1, 400) AS n
        """
    )
    told = await facet(client, "meta.v")
    assert told["estimated"]
    [(first, often), (second, rare)] = counts(told)
    assert (first, second) == ("often", "rare")
    assert often == pytest.approx(200, abs=60)
    assert rare == pytest.approx(100, abs=60)
    assert often + rare + told["missing"] == pytest.approx(401, abs=2)
    assert not (await facet(client, "meta.v", filters={"doc_id": ["d1", "d2"]}))["estimated"]
