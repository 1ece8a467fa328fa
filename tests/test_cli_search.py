"""`indexd search`: results for people, and how they were found."""

import asyncio

import pytest
from click.testing import CliRunner

from indexd.cli import commands
from tests.conftest import Client, document
from tests.conftest import command as run


async def command(url: str, *words: str) -> str:
    return await asyncio.to_thread(run, url, *words)


@pytest.fixture
async def stored(client: Client, common_url: str) -> str:
    await client.post("/index/upsert", json=document("backup", [1, 0], texts=["Backups are kept."]))
    await client.post("/index/upsert", json=document("shell", [0, 1], texts=["A shell\x1b[2J."]))
    return common_url


async def test_words_are_found_and_the_plan_is_explained(stored: str) -> None:
    said = await command(stored, "search", "-n", "notes", "--explain", "backups")
    assert "backup" in said
    assert "plan       words:" in said


async def test_what_is_near_a_document_is_found_by_a_scan_of_a_small_namespace(stored: str) -> None:
    said = await command(stored, "search", "-n", "notes", "--like", "backup", "--explain")
    assert "shell" in said
    assert "plan       scan: score all of about 2 chunks" in said
    assert "namespace  2 chunks, dimension 2, no index, no half-life" in said


async def test_a_terminal_obeys_nothing_that_is_stored(stored: str) -> None:
    assert "\x1b[2J" not in await command(stored, "search", "-n", "notes", "shell")


@pytest.mark.parametrize("words", [["  "], ["--like", "nowhere"]])
async def test_nothing_to_search_for_and_unknown_documents_are_errors(
    stored: str, words: list[str]
) -> None:
    arguments = ["search", *words, "--database-url", stored]
    outcome = await asyncio.to_thread(CliRunner().invoke, commands, arguments)
    assert outcome.exit_code == 1
    assert not outcome.output
