"""Searching by words alone: German and English, and never an error."""

from typing import Any

import pytest

from tests.conftest import Client, document

TEXTS = {
    "backup-de": "Die Sicherungen der Datenbanken werden verschlüsselt aufbewahrt.",
    "backup-en": "The backups of all databases are encrypted and stored.",
    "law": "Die neuen Häuser stehen an der Straße.",
    "code": "Fix a crash in git-send-email when sendemail.aliasfile is 'quoted'.",
    "long": "wort " * 40_000 + "ende",
}


@pytest.fixture(autouse=True)
async def corpus(client: Client) -> None:
    for doc_id, text in TEXTS.items():
        await client.post("/index/upsert", json=document(doc_id, [1, 0], texts=[text]))


async def found(client: Client, query: str, **rest: Any) -> list[str]:
    response = await client.post(
        "/index/search", json={"namespace": "notes", "query": query, **rest}
    )
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["mode"] == "lexical"
    assert all(0 < r["score"] <= 1 for r in answer["results"])
    return [result["doc_id"] for result in answer["results"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Sicherung", ["backup-de"]),
        ("verschlüsselte Datenbank", ["backup-de"]),
        ("backup encryption", ["backup-en"]),
        ("store a database", ["backup-en"]),
        ("Haus Straße", ["law"]),
        ("HAEUSER häusern", ["law"]),
        ("crashes in git-send-email", ["code"]),
        ("die der und", []),
        ("Nirgendwo", []),
    ],
)
async def test_words_are_found_in_their_forms(
    client: Client, query: str, expected: list[str]
) -> None:
    assert await found(client, query) == expected


async def test_all_words_are_wanted_before_any(client: Client) -> None:
    await client.post("/index/upsert", json=document("both", [1, 0], texts=["crash of a backup"]))
    assert await found(client, "backup crash") == ["both"]


async def test_where_no_text_has_all_words_any_will_do(client: Client) -> None:
    assert sorted(await found(client, "backup crash")) == ["backup-en", "code"]


async def test_the_rationale_names_the_words_that_matched(client: Client) -> None:
    response = await client.post(
        "/index/search", json={"namespace": "notes", "query": "encrypted backup, nowhere"}
    )
    assert response.json()["results"][0]["rationale"] == ["Text match: encrypted, backup"]


@pytest.mark.parametrize(
    "query",
    [
        "'; DROP TABLE indexd.chunks; --",
        "a & b | !c <-> (d:*",
        "\\ ' \" % _ $1 %s %(x)s",
        "-backup",
        "wort " * 50_000,
        " ".join(f"w{n}x" for n in range(30_000)),
        "-".join(f"w{n}" for n in range(20_000)),
        "🦀" * 10_000,
        "x" * 100_000,
    ],
    ids=range(9),
)
async def test_no_query_fails(client: Client, query: str) -> None:
    await found(client, query)


async def test_words_far_into_a_long_text_are_not_indexed_but_the_text_is_kept(
    client: Client,
) -> None:
    assert await found(client, "wort") == ["long"]
    assert await found(client, "ende") == []
    response = await client.post("/index/search", json={"namespace": "notes", "query": "wort"})
    assert response.json()["results"][0]["text"] == TEXTS["long"]


async def test_filters_and_decay_hold_for_words_too(client: Client) -> None:
    body = document(
        "faded",
        [1, 0],
        texts=[TEXTS["backup-de"]],
        ingested_at="2020-01-01T00:00:00Z",
        half_life_seconds=365 * 86400,
    )
    await client.post("/index/upsert", json=body)
    assert await found(client, "Sicherung", filters={"doc_id": ["faded", "law"]}) == ["faded"]
    assert await found(client, "Sicherung") == ["backup-de", "faded"]


async def test_mode_lexical_ignores_a_vector(client: Client) -> None:
    assert await found(client, "Sicherung", mode="lexical", embedding=[0, 1]) == ["backup-de"]
