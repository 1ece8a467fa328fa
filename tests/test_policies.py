"""Retention policies: what a file may say, what its mistakes are called, and what is in force."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from indexd import policy
from indexd.app import create_app
from indexd.cli import commands
from indexd.errors import ConfigurationError
from indexd.policy import Policy
from indexd.settings import Settings
from tests.conftest import Client, command, document

SHIPPED = Path(__file__).parents[1] / "policies" / "indexd_retention.yaml"


def written(folder: Path, text: str) -> Path:
    file = folder / "policies.yaml"
    file.write_text(text)
    return file


def test_the_shipped_file_is_the_seeds_example() -> None:
    found = policy.load(policy.shipped())
    assert policy.shipped() == SHIPPED
    assert found.namespaces["chronik"].half_life_seconds == 30 * 86400
    assert found.namespaces["osctx"].half_life_seconds == 86400
    assert found.namespaces["code"].half_life_seconds is None
    assert found.defaults == Policy()


def test_a_missing_key_takes_the_default_and_null_means_none(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        defaults: {half_life_seconds: 60, max_items: 5, purge_strategy: oldest}
        namespaces:
          a: {half_life_seconds: null}
          b: {max_items: 7, purge_strategy: lowest_score}
          c:
        """,
    )
    found = policy.load(file)
    assert found.namespaces == {
        "a": Policy(None, 5, None, "oldest"),
        "b": Policy(60.0, 7, None, "lowest_score"),
        "c": Policy(60.0, 5, None, "oldest"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "namespaces: {chronik: {purge_strategy: random}}",
            "namespaces.chronik.purge_strategy: 'random' is forbidden, use oldest or lowest_score",
        ),
        (
            "namespaces: {chronik: {purge_strategy: newest}}",
            "namespaces.chronik.purge_strategy: 'newest' is unknown, use oldest or lowest_score",
        ),
        (
            "namespaces: {chronik: {max_items: 5}}",
            "namespaces.chronik.purge_strategy: expected oldest or lowest_score, "
            "because max_items is set",
        ),
        ("defaults: {half_life_seconds: 0}", "defaults.half_life_seconds: expected a positive"),
        ("defaults: {half_life_seconds: .inf}", "defaults.half_life_seconds: expected a positive"),
        ("defaults: {half_life_seconds: .nan}", "defaults.half_life_seconds: expected a positive"),
        ("defaults: {half_life_seconds: soon}", "defaults.half_life_seconds: expected a number"),
        ("defaults: {half_life_seconds: true}", "defaults.half_life_seconds: expected a number"),
        ("defaults: {max_items: 1.5}", "defaults.max_items: expected a whole number"),
        ("defaults: {max_items: 0}", "defaults.max_items: expected a whole number"),
        ("defaults: {max_age_seconds: -1}", "defaults.max_age_seconds: expected a positive"),
        (
            "defaults: {half_live: 1}",
            "defaults.half_live: unknown field, expected half_life_seconds",
        ),
        ("default: {}", "the file.default: unknown field, expected defaults, namespaces"),
        ("namespaces: [a]", "namespaces: expected keys and values"),
        ("namespaces: {a: 7}", "namespaces.a: expected keys and values"),
        ("- a", "the file: expected keys and values"),
        ("namespaces: {'': {half_life_seconds: 1}}", "namespaces.: expected a name of 1 to 128"),
        ("namespaces: {' ': {half_life_seconds: 1}}", "namespaces. : expected a name of 1 to 128"),
        ("namespaces: {null: {half_life_seconds: 1}}", "namespaces.None: expected a name"),
        (f"namespaces: {{{'x' * 129}: {{}}}}", "expected a name of 1 to 128 characters"),
        ("namespaces: {a: {}, ' a ': {}}", "namespaces.a: is there twice"),
        ("a: [", "policies.yaml: "),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as refused:
        policy.load(file)
    assert message in str(refused.value)
    assert str(file) in str(refused.value)


def test_a_bad_file_stops_the_start(tmp_path: Path) -> None:
    file = written(tmp_path, "namespaces: {chronik: {purge_strategy: random}}")
    with pytest.raises(ConfigurationError, match=r"namespaces\.chronik\.purge_strategy"):
        create_app(Settings(database_url="postgresql:///x", policies=str(file)))
    with pytest.raises(ConfigurationError, match="No such file"):
        create_app(Settings(database_url="postgresql:///x", policies=str(tmp_path / "none")))


def test_the_hash_is_of_what_is_meant(tmp_path: Path) -> None:
    one = policy.load(written(tmp_path, "namespaces: {a: {half_life_seconds: 60}, b: {}}"))
    same = policy.load(
        written(tmp_path, "# words\nnamespaces: {b: , a: {half_life_seconds: 60.0}}")
    )
    other = policy.load(written(tmp_path, "namespaces: {a: {half_life_seconds: 61}, b: {}}"))
    assert one.hash == same.hash != other.hash


async def test_retention_answers_what_is_in_force(own_client: Client) -> None:
    answer = (await own_client.get("/index/retention")).json()
    assert answer["configs"]["chronik"] == {
        "half_life_seconds": 2592000.0,
        "max_items": None,
        "max_age_seconds": None,
        "purge_strategy": None,
        "grace_seconds": 0.0,
        "semantic": None,
    }
    assert answer["source"] == str(SHIPPED)
    assert answer["policy_hash"] == policy.load(SHIPPED).hash
    assert answer["policy_hash"] == (await own_client.get("/index/stats")).json()["policy_hash"]


async def test_the_half_life_of_the_namespace_works_and_the_documents_own_wins(
    settings: Settings, tmp_path: Path
) -> None:
    file = written(tmp_path, "namespaces: {notes: {half_life_seconds: 86400}}")
    changed = Settings(database_url=settings.database_url, policies=str(file))
    async with Client(create_app(changed)) as client:
        past = "2020-01-01T00:00:00Z"
        await client.post("/index/upsert", json=document("old", [1, 0], ingested_at=past))
        own = document("own", [1, 1], ingested_at=past, half_life_seconds=1e12)
        await client.post("/index/upsert", json=own)
        answer = await client.post(
            "/index/search",
            json={"namespace": "notes", "embedding": [1, 0], "include_weights": True},
        )
        found = answer.json()["results"]
        assert [hit["doc_id"] for hit in found] == ["own", "old"]
        assert found[1]["weights"]["decay"] < 1e-300
        assert found[1]["rationale"][-1].startswith("Decay: 0.00 (age ")


def test_policies_are_checked_shown_and_applied(url: str, tmp_path: Path) -> None:
    file = written(tmp_path, "namespaces: {a: {half_life_seconds: 60}}")
    checked = CliRunner().invoke(commands, ["policy", "check", str(file)])
    assert checked.exit_code == 0
    assert policy.load(file).hash in checked.output
    assert command(url, "policy", "apply", str(file)).startswith("applied: ")
    assert command(url, "policy", "apply", str(file)).startswith("already in force: ")
    shown = command(url, "policy", "show")
    assert policy.load(file).hash in shown
    assert "half_life_seconds: 60.0" in shown
    written(tmp_path, "namespaces: {a: {max_items: 0}}")
    refused = CliRunner().invoke(commands, ["policy", "check", str(file)])
    assert isinstance(refused.exception, ConfigurationError)
    assert "namespaces.a.max_items: expected a whole number" in str(refused.exception)
