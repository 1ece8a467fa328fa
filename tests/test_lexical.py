"""Searching by words alone: German and English, and never an error."""

import re
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
        ("stored database", ["backup-en"]),
        ("Haus Straße", ["law"]),
        ("HAEUSER häusern", ["law"]),
        ("crashes in git-send-email", ["code"]),
        ("in will so", []),
        ("Nirgendwo", []),
    ],
)
async def test_words_are_found_in_their_forms(
    client: Client, query: str, expected: list[str]
) -> None:
    assert await found(client, query) == expected


async def test_the_text_with_more_and_rarer_words_comes_first(client: Client) -> None:
    await client.post("/index/upsert", json=document("both", [1, 0], texts=["crash of a backup"]))
    assert await found(client, "backup crash") == ["both", "backup-en", "code"]


async def test_a_stop_word_of_one_language_counts_where_it_is_a_word_of_the_other(
    client: Client,
) -> None:
    await client.post("/index/upsert", json=document("dice", [1, 0], texts=["they die of it"]))
    assert await found(client, "die") == ["dice", "backup-de", "law"]


async def test_the_rationale_names_the_words_that_counted_weightiest_first(client: Client) -> None:
    await client.post("/index/upsert", json=document("more", [1, 0], texts=["of a backup"]))
    response = await client.post(
        "/index/search", json={"namespace": "notes", "query": "backup, encrypted; nowhere"}
    )
    [line] = response.json()["results"][0]["rationale"]
    assert re.fullmatch(r"Text match: encrypted \((\d+)%\), backup \((\d+)%\)", line), line


SHAPES = [
    ("git config sendemail.aliasfile ~/x", "aliasfile"),
    ("git config sendemail.aliasfile ~/x", "sendemail.aliasfile"),
    ("Anna <schmidt@firma.example>", "schmidt"),
    ("Anna <schmidt@firma.example>", "schmidt@firma.example"),
    ("Fehler E-4711 beim Start", "4711"),
    ("Fehler E-4711 beim Start", "E4711"),
    ("Ein Café in Paris", "cafe"),
    ("Ein Cafe in Paris", "café"),
    ("Ein Cafe\u0301 in Paris", "CAFÉ"),
    ("会議は東京都で行う", "東京"),
    ("회의는 서울에서 한다", "서울"),
    ("การประชุมที่กรุงเทพ", "กรุงเทพ"),
    ("def getUserProfileById(self):", "user profile"),
    ("def getUserProfileById(self):", "get_user_profile_by_id"),
    ("class HTTPServer:", "server"),
    ("Version v1.2.3 ist da", "1.2.3"),
    ("am 2024-01-15 um acht", "2024-01-15"),
    ("am 2024-01-15 um acht", "2024"),
    ("in /usr/local/etc/indexd.conf", "indexd.conf"),
    ("see https://example.org/docs/search?q=1", "example.org"),
    ("utf8 ist genug", "utf-8"),
    ("Straße der Müller", "strasse"),
    ("Strasse der Mueller", "Müller"),
    ("Über die Häuser", "haeuser"),
    ("sent by e-mail", "emails"),
    ("<b>bold</b> text", "bold"),
    ("„Anführung“ und —strich", "strich"),
    ("a crab 🦀 here", "🦀"),
]


@pytest.mark.parametrize(("text", "query"), SHAPES)
async def test_words_are_found_in_their_shapes(client: Client, text: str, query: str) -> None:
    await client.post("/index/upsert", json=document("shaped", [1, 0], texts=[text]))
    assert "shaped" in await found(client, query)


HOSTILE = [
    "x" * 1_000_000,
    "a1" * 200_000,
    "aB" * 200_000,
    "-".join(f"w{n}" for n in range(60_000)),
    " ".join(f"w{n}" for n in range(60_000)),
    "東" * 100_000,
    "".join(chr(0x4E00 + n % 20_000) for n in range(100_000)),
    "".join(chr(0x20000 + n % 40_000) for n in range(100_000)),
    "\ufdfa" * 100_000,
    "e" + "\u0301" * 99_999,
    "é-" * 50_000,
    "\u200b\u00ad\ufeff ",
    "'" * 50_000 + "\\" * 50_000,
    "",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_no_text_fails(client: Client, text: str) -> None:
    body = document("hostile", [1, 0], texts=[text])
    answer = await client.post("/index/upsert", json=body)
    assert answer.status_code == 200, answer.text
    await found(client, text[:1_000] or "x")


async def test_the_excerpt_is_where_the_words_stand_and_highlights_say_where(
    client: Client,
) -> None:
    text = "Nothing to see here, go on. " * 20 + "The aliasfile was quoted. " + "More of it. " * 30
    await client.post("/index/upsert", json=document("far", [1, 0], texts=[text]))
    response = await client.post(
        "/index/search", json={"namespace": "notes", "query": "quoted aliasfile"}
    )
    hits = {result["doc_id"]: result for result in response.json()["results"]}
    snippet = hits["far"]["snippet"]
    assert len(snippet) <= 240
    marked = [snippet[start:end] for start, end in hits["far"]["highlights"]]
    assert marked == ["aliasfile", "quoted"]
    code = hits["code"]
    assert [code["snippet"][start:end] for start, end in code["highlights"]] == [
        "aliasfile",
        "quoted",
    ]


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
