"""Documents as a library: read many, list page by page, count, delete many."""

import asyncio
import random
from typing import Any

import pytest

from indexd.app import create_app
from indexd.settings import Settings
from tests.conftest import Client, Sql, document

AT = "2024-01-{:02}T00:00:00Z"


async def ask(client: Client, route: str, **body: Any) -> Any:
    body = {"namespace": "notes", **body}
    answer = await client.post(f"/index/documents/{route}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: Client, route: str, **body: Any) -> str:
    body = {"namespace": "notes", **body}
    answer = await client.post(f"/index/documents/{route}", json=body)
    assert answer.status_code == 400, answer.text
    code: str = answer.json()["code"]
    return code


def ids(told: Any) -> list[str]:
    return [one["doc_id"] for one in told["documents"]]


@pytest.fixture
async def filled(client: Client) -> Client:
    """d0 to d9, of one or two chunks; each third has the tag `even/third` on a chunk of its own."""
    for n in range(10):
        body = document(
            f"d{n}",
            [1, n],
            *([[1, -n]] if n % 3 == 0 else []),
            texts=[f"text {n}"] + (["more"] if n % 3 == 0 else []),
            metas=[{"n": n, "source_path": f"p{n % 2}"}]
            + ([{"tags": ["even/third"]}] if n % 3 == 0 else []),
        )
        body |= {
            "meta": {"lang": "de" if n < 5 else "en", "tags": ["own"] if n == 9 else []},
            "ingested_at": AT.format(28 - n),
            "source_ref": {"origin": f"o{n % 2}", "id": str(n)},
        }
        assert (await client.post("/index/upsert", json=body)).status_code == 200
    return client


async def listed(client: Client, **body: Any) -> list[str]:
    """All pages of a list."""
    found: list[str] = []
    cursor = None
    while True:
        told = await ask(client, "list", **body, cursor=cursor)
        found += ids(told)
        cursor = told["next_cursor"]
        if cursor is None:
            return found


class TestGet:
    async def test_documents_come_in_the_order_asked_for_and_missing_ones_not(
        self, filled: Client
    ) -> None:
        told = await ask(filled, "get", doc_ids=["d3", "no", "d1", "d3"])
        assert ids(told) == ["d3", "d1"]

    async def test_a_document_has_every_field_of_the_contract(self, filled: Client) -> None:
        [told] = (await ask(filled, "get", doc_ids=["d9"], vectors=True))["documents"]
        created = told.pop("created_at")
        assert created.endswith("Z")
        [first, second] = told.pop("chunks")
        assert told == {
            "doc_id": "d9",
            "namespace": "notes",
            "version": 1,
            "ingested_at": AT.format(19),
            "expires_at": None,
            "half_life_seconds": None,
            "meta": {"lang": "en", "tags": ["own"]},
            "tags": ["even/third", "own"],
            "source_ref": {
                "origin": "o1",
                "id": "9",
                "offset": None,
                "trust_level": None,
                "injected_by": None,
            },
        }
        assert (first["id"], first["text"]) == ("d9#0", "text 9")
        assert first["meta"] == {"n": 9, "source_path": "p1"}
        assert second["embedding"] == pytest.approx([0.110432, -0.993884], abs=1e-5)

    async def test_one_document_is_answered_alike(self, filled: Client) -> None:
        [told] = (await ask(filled, "get", doc_ids=["d3"]))["documents"]
        alone = await filled.get("/index/document?namespace=notes&doc_id=d3")
        assert alone.json() == told

    async def test_chunks_are_left_out_when_they_are_not_wanted(self, filled: Client) -> None:
        [told] = (await ask(filled, "get", doc_ids=["d3"], chunks=False))["documents"]
        assert "chunks" not in told
        assert told["tags"] == ["even/third"]

    @pytest.mark.parametrize("wrong", [[], ["x"] * 1_001, [""], ["x" * 513], "d1", [1], None])
    async def test_wrong_ids_are_refused(self, client: Client, wrong: Any) -> None:
        for route in ("get", "delete"):
            assert await refused(client, route, doc_ids=wrong) == "invalid_field"


class TestList:
    @pytest.mark.parametrize("limit", [1, 3, 10, 11])
    @pytest.mark.parametrize("descending", [False, True])
    async def test_pages_are_the_whole_in_order(
        self, filled: Client, limit: int, descending: bool
    ) -> None:
        by_id = [f"d{n}" for n in range(10)]
        orders = {"doc_id": by_id, "created_at": by_id, "ingested_at": by_id[::-1]}
        for order, expected in orders.items():
            found = await listed(filled, order=order, descending=descending, limit=limit)
            assert found == (expected[::-1] if descending else expected)

    @pytest.mark.parametrize(
        ("filters", "kept"),
        [
            ({"tags": ["even"]}, [0, 3, 6, 9]),
            ({"tags": ["own"]}, [9]),
            ({"tags": ["none", "own"]}, [9]),
            ({"source_path": "p1"}, [1, 3, 5, 7, 9]),
            ({"source_path": "p1", "tags": ["even/third"]}, [3, 9]),
            ({"source_ref_origin": ["o0", "none"]}, [0, 2, 4, 6, 8]),
            ({"doc_id": ["d2", "d7", "no"]}, [2, 7]),
            ({"ingested_after": AT.format(24)}, [0, 1, 2, 3]),
            ({"ingested_before": AT.format(24)}, [5, 6, 7, 8, 9]),
            ({"meta": {"lang": "de"}}, [0, 1, 2, 3, 4]),
            ({"meta": {"n": 4}}, [4]),
            ({"meta": {"lang": "en", "n": 7}}, [7]),
            ({"meta": {"lang": "de", "n": 7}}, []),
        ],
    )
    async def test_filters_hold_for_lists_and_counts(
        self, filled: Client, filters: Any, kept: list[int]
    ) -> None:
        expected = [f"d{n}" for n in kept]
        assert await listed(filled, filters=filters, limit=2) == expected
        told = await ask(filled, "count", filter=filters)
        chunks = sum(2 if n % 3 == 0 else 1 for n in kept)
        assert told == {"documents": len(kept), "chunks": chunks}

    async def test_a_cursor_under_another_order_is_refused(self, filled: Client) -> None:
        cursor = (await ask(filled, "list", limit=2))["next_cursor"]
        for other in ({"order": "created_at"}, {"descending": True}):
            assert await refused(filled, "list", cursor=cursor, **other) == "invalid_field"
        for wrong in ("", "x", "bm9uc2Vuc2U=", cursor[:-4], 5):
            assert await refused(filled, "list", cursor=wrong) == "invalid_field"

    @pytest.mark.parametrize(
        "wrong", [{"limit": 0}, {"limit": "x"}, {"order": "text"}, {"filters": {"tags": []}}]
    )
    async def test_wrong_questions_are_refused(self, client: Client, wrong: Any) -> None:
        assert await refused(client, "list", **wrong) == "invalid_field"

    async def test_an_unknown_namespace_is_empty(self, client: Client) -> None:
        assert await ask(client, "list") == {"documents": [], "next_cursor": None}
        assert await ask(client, "count") == {"documents": 0, "chunks": 0}
        assert await ask(client, "get", doc_ids=["d"]) == {"documents": []}

    async def test_no_namespace_sees_another(self, filled: Client) -> None:
        await filled.post("/index/upsert", json=document("d0", [1, 0]) | {"namespace": "other"})
        assert await listed(filled, namespace="other") == ["d0"]


class TestDelete:
    async def test_many_leave_as_one_event(self, filled: Client, sql: Sql) -> None:
        asked = {"doc_ids": ["d1", "no", "d2", "d1"], "reason": "duplicates"}
        dry = await ask(filled, "delete", **asked, dry_run=True)
        assert len(await listed(filled)) == 10
        told = await ask(filled, "delete", **asked)
        assert told == dry == {"deleted": 2, "missing": ["no"]}
        assert len(await listed(filled)) == 8
        events = sql("SELECT kind, reason, forgotten_count FROM indexd.forget_events")
        assert events == [("delete", "duplicates", 2)]
        assert await ask(filled, "delete", **asked) == {
            "deleted": 0,
            "missing": ["d1", "no", "d2"],
        }

    async def test_one_document_says_whether_it_was_there(self, filled: Client) -> None:
        body = {"namespace": "notes", "doc_id": "d1"}
        told = [(await filled.post("/index/delete", json=body)).json() for _ in range(2)]
        assert told == [
            {"status": "accepted", "deleted": 1},
            {"status": "accepted", "deleted": 0},
        ]


@pytest.mark.slow
async def test_an_answer_that_is_too_large_is_cut_or_refused(settings: Settings) -> None:
    from msgspec.structs import replace

    async with Client(create_app(replace(settings, max_answer_bytes=20_000))) as client:
        for n in range(6):
            await client.post("/index/upsert", json=document(f"d{n}", [1, n], texts=["x" * 9_000]))
        told = await ask(client, "list", chunks=True)
        assert ids(told) == ["d0", "d1"]
        assert await listed(client, chunks=True) == [f"d{n}" for n in range(6)]
        assert ids(await ask(client, "list")) == [f"d{n}" for n in range(6)]
        assert ids(await ask(client, "get", doc_ids=["d1", "d2"])) == ["d1", "d2"]
        assert await refused(client, "get", doc_ids=["d1", "d2", "d3"]) == "answer_too_large"
        assert len(ids(await ask(client, "get", doc_ids=["d1", "d2", "d3"], chunks=False))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("order", ["doc_id", "created_at"])
async def test_each_document_that_stays_is_listed_once_while_others_come_and_go(
    client: Client, order: str
) -> None:
    stay = {f"s{n:03}" for n in range(150)}
    for doc_id in sorted(stay, key=lambda one: one[::-1]):
        await client.post("/index/upsert", json=document(doc_id, [1, 0]))
    stop = False

    async def write(name: int) -> None:
        choose = random.Random(name)
        while not stop:
            doc_id = f"{'aszx'[choose.randrange(4)]}{choose.randrange(150):03}-{name}"
            await client.post("/index/upsert", json=document(doc_id, [1, choose.random()]))
            kept = choose.choice(sorted(stay))
            await client.post("/index/upsert", json=document(kept, [1, choose.random()]))
            await client.post("/index/delete", json={"namespace": "notes", "doc_id": doc_id})

    writers = [asyncio.create_task(write(name)) for name in range(8)]
    try:
        for descending in (False, True):
            found = await listed(client, order=order, descending=descending, limit=7)
            assert sorted(one for one in found if one in stay) == sorted(stay)
            assert len(set(found)) == len(found)
    finally:
        stop = True
        await asyncio.gather(*writers)
