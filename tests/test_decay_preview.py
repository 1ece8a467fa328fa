"""How far documents have faded: computed in SQL, changing nothing."""

import pytest

from tests.conftest import Client, Sql, document

AT = "2026-01-11T00:00:00Z"


async def preview(client: Client, **body: object) -> dict[str, object]:
    answer = await client.post("/index/decay/preview", json={"namespace": "notes", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


async def fill(client: Client) -> None:
    for doc_id, day, own in (("old", 1, None), ("new", 6, None), ("own", 1, 864000), ("to", 30, 1)):
        body = document(
            doc_id, [1, 0], ingested_at=f"2026-01-{day:02}T00:00:00Z", half_life_seconds=own
        )
        assert (await client.post("/index/upsert", json=body)).status_code == 200


async def test_the_most_faded_come_first_with_their_age(client: Client) -> None:
    await fill(client)
    found = await preview(client, at=AT, half_life_seconds=432000)
    assert found["total_documents"] == 4
    assert found["half_life_seconds"] == 432000
    assert found["at"] == AT
    previews = [
        (one["doc_id"], one["age_seconds"], one["decay_factor"])
        for one in found["previews"]  # type: ignore[attr-defined]
    ]
    assert previews == [
        ("old", 864000.0, 0.25),
        ("own", 864000.0, 0.5),
        ("new", 432000.0, 0.5),
        ("to", 0.0, 1.0),
    ]


async def test_without_a_half_life_nothing_fades(client: Client) -> None:
    await fill(client)
    found = await preview(client, at=AT)
    assert found["half_life_seconds"] is None
    assert {one["decay_factor"] for one in found["previews"]} == {0.5, 1.0}  # type: ignore[attr-defined]


async def test_the_curve_counts_every_document_once(client: Client) -> None:
    await fill(client)
    curve = (await preview(client, at=AT, half_life_seconds=432000))["curve"]
    assert sum(point["documents"] for point in curve) == 4  # type: ignore[attr-defined]
    assert curve[0] == {"age_seconds": 0.0, "decay_factor": 1.0, "documents": 1}  # type: ignore[index]
    assert curve[-1] == {"age_seconds": 864000.0, "decay_factor": 0.25, "documents": 2}  # type: ignore[index]


async def test_the_limit_bounds_the_list_and_not_the_count(client: Client) -> None:
    await fill(client)
    found = await preview(client, at=AT, half_life_seconds=1, limit=1)
    assert len(found["previews"]) == 1  # type: ignore[arg-type]
    assert found["total_documents"] == 4
    await preview(client, limit=10**9)


async def test_any_age_and_any_half_life_give_a_number(client: Client) -> None:
    ancient = document("a", [1, 0], ingested_at="0001-01-01T00:00:00Z")
    await client.post("/index/upsert", json=ancient)
    for half_life in (5e-324, 1e-300, 1.0, 1e300, 1.7e308):
        for at in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"):
            found = await preview(client, at=at, half_life_seconds=half_life)
            factor = found["previews"][0]["decay_factor"]  # type: ignore[index]
            assert 0 <= factor <= 1


async def test_an_unknown_namespace_is_empty_and_default_is_the_default(client: Client) -> None:
    found = await preview(client, namespace="nowhere")
    assert (found["total_documents"], found["previews"], found["curve"]) == (0, [], [])
    answer = await client.post("/index/decay/preview", json={})
    assert answer.json()["namespace"] == "default"


@pytest.mark.parametrize(
    "body",
    [
        {"half_life_seconds": 0},
        {"half_life_seconds": -1},
        {"half_life_seconds": "1"},
        {"limit": 0},
        {"limit": 1.5},
        {"at": "2026-01-01"},
        {"at": "2026-01-01T00:00:00"},
        {"namespace": 7},
        {"namespace": "x" * 129},
    ],
)
async def test_a_bad_request_is_400(client: Client, body: dict[str, object]) -> None:
    assert (await client.post("/index/decay/preview", json=body)).status_code == 400


async def test_a_preview_changes_nothing(client: Client, sql: Sql) -> None:
    await fill(client)
    before = sql("SELECT * FROM indexd.documents ORDER BY doc_id")
    await preview(client, at="2036-01-01T00:00:00Z", half_life_seconds=1)
    assert sql("SELECT * FROM indexd.documents ORDER BY doc_id") == before
    assert sql("SELECT count(*) FROM indexd.forget_events") == [(0,)]
