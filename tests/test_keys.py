"""`indexd keys`, and servers that follow what it does."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pytest

from indexd.errors import ConfigurationError
from indexd.store import keys as store
from tests.conftest import document
from tests.test_serve import external, serving

pytestmark = pytest.mark.slow

__all__ = ["external"]


def keys(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "indexd", "keys", *arguments, "--database-url", url],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret.strip()}"}


def test_a_key_is_made_shown_once_listed_and_revoked_in_every_process(
    tmp_path: Path, external: str
) -> None:
    with serving(tmp_path, "--workers", "2", "--database-url", external, INDEXD_AUTH="keys") as (
        client,
        _,
    ):
        made = keys(external, "create", "notes", "--scope", "write", "--namespace", " notes ")
        assert made.returncode == 0, made.stderr
        header = bearer(made.stdout)
        for _ in range(20):  # new connections, so that both workers are met
            answer = httpx.post(
                f"{client.base_url}/index/upsert", json=document("a", [1, 0]), headers=header
            )
            assert answer.status_code == 200

        again = keys(external, "create", "notes")
        assert again.returncode == 1
        assert "'notes'" in again.stderr
        listed = keys(external, "list").stdout
        assert made.stdout.strip()[:12] in listed
        assert made.stdout.strip()[12:] not in listed
        assert "valid" in listed

        revoked = keys(external, "revoke", "notes")
        assert "known to all servers there are: 2" in revoked.stdout
        for _ in range(20):
            answer = httpx.get(f"{client.base_url}/index/stats", headers=header)
            assert answer.status_code == 401
        assert "revoked" in keys(external, "list").stdout
        assert keys(external, "revoke", "notes").returncode == 1
    output = (tmp_path / "out").read_text()
    assert made.stdout.strip() not in output
    assert '"key":"notes"' in output


@pytest.mark.parametrize("expires", ["soon", "0d", "2020-01-01T00:00Z", "2099-01-01T00:00"])
def test_an_expiry_that_is_none_is_refused(external: str, expires: str) -> None:
    refused = keys(external, "create", "x", "--expires", expires)
    assert refused.returncode == 1
    assert "--expires" in refused.stderr


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_namespace_without_a_name_is_refused(external: str, blank: str) -> None:
    refused = keys(external, "create", "x", "--namespace", "notes", "--namespace", blank)
    assert refused.returncode == 1
    assert "--namespace" in refused.stderr
    assert "valid" not in keys(external, "list").stdout


def test_an_expired_key_keeps_its_name_until_it_is_revoked(
    external: str, clone: psycopg.Connection[Any]
) -> None:
    assert keys(external, "create", "agent", "--expires", "1d").returncode == 0
    clone.execute("UPDATE indexd.api_keys SET expires_at = now()")
    clone.commit()
    refused = keys(external, "create", "agent")
    assert refused.returncode == 1
    assert "valid or expired; revoke it first" in refused.stderr
    assert keys(external, "revoke", "agent").returncode == 0
    assert keys(external, "create", "agent").returncode == 0


async def test_a_server_that_may_not_be_looked_into_counts_as_behind(external: str) -> None:
    since = datetime.now(UTC) - timedelta(hours=1)
    async with (
        await psycopg.AsyncConnection.connect(external, application_name=store.FOLLOWER) as server,
        await psycopg.AsyncConnection.connect(external) as admin,
    ):
        await server.set_autocommit(True)
        await server.execute("SELECT")
        assert await store.followers(admin, since) == store.Followers(1, 0)
        await admin.execute("CREATE ROLE stranger")
        await admin.execute("SET LOCAL ROLE stranger")
        assert await store.followers(admin, since) == store.Followers(1, 1)
        await admin.rollback()


@pytest.mark.parametrize(
    ("about", "named"),
    [
        ({"scope": "read"}, "has scope read;"),
        ({"namespaces": ["notes"]}, "has scope admin and limited to namespaces;"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "has expired"),
    ],
)
async def test_a_key_that_may_do_less_is_no_admin_key_of_a_file(
    external: str, about: dict[str, Any], named: str
) -> None:
    async with await psycopg.AsyncConnection.connect(external) as connection:
        at = datetime.now(UTC)
        new = store.NewKey("f" * 40, "agent", "admin")
        await store.create(connection, msgspec.structs.replace(new, **about), at=at)
        with pytest.raises(ConfigurationError, match=named):
            await store.ensure_from_file(connection, "f" * 40, at=at)


async def test_an_admin_key_with_a_name_of_its_own_may_be_in_the_file(external: str) -> None:
    async with await psycopg.AsyncConnection.connect(external) as connection:
        at = datetime.now(UTC)
        await store.create(connection, store.NewKey("f" * 40, "agent", "admin"), at=at)
        await store.ensure_from_file(connection, "f" * 40, at=at)
        assert [key.name for key in await store.every(connection)] == ["agent"]


def test_the_admin_key_of_a_file_is_known_from_the_start(tmp_path: Path, external: str) -> None:
    file = tmp_path / "admin"
    file.write_text("k" * 40 + "\n")
    with serving(
        tmp_path,
        *("--database-url", external),
        INDEXD_AUTH="keys",
        INDEXD_ADMIN_KEY_FILE=str(file),
    ) as (client, _):
        assert client.get("/index/stats", headers=bearer("k" * 40)).status_code == 200
        assert client.get("/index/stats").status_code == 401


@pytest.mark.parametrize("content", ["", "short", "ä" * 40, "k" * 513])
def test_a_file_without_a_good_key_stops_the_start(
    tmp_path: Path, external: str, content: str
) -> None:
    file = tmp_path / "admin"
    file.write_text(content)
    outcome = refused_start(external, {"INDEXD_ADMIN_KEY_FILE": str(file)})
    assert "admin_key_file" in outcome


def test_no_keys_on_an_address_that_others_reach_needs_saying_so(external: str) -> None:
    outcome = refused_start(external, {"INDEXD_AUTH": "off", "INDEXD_BIND_ADDR": "0.0.0.0:0"})
    assert "--insecure" in outcome


def refused_start(url: str, environ: dict[str, str]) -> str:
    import os

    outcome = subprocess.run(
        [sys.executable, "-m", "indexd", "serve", "--port", "0", "--database-url", url],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert outcome.returncode == 1
    assert "Traceback" not in outcome.stderr
    return outcome.stderr


def test_workers_answer_metrics_for_all(tmp_path: Path, external: str) -> None:
    with serving(tmp_path, "--workers", "3", "--database-url", external) as (client, _):
        client.post("/index/upsert", json=document("a", [1, 0]))
        for _ in range(30):
            search = {"namespace": "notes", "embedding": [1, 0]}
            httpx.post(f"{client.base_url}/index/search", json=search)
        for _ in range(10):
            lines = httpx.get(f"{client.base_url}/metrics").text.splitlines()
            assert "index_queries_total 30.0" in lines
            assert "index_query_duration_seconds_count 30.0" in lines
            assert 'index_items_total{namespace="notes"} 1.0' in lines
            assert lines.count("index_pool_waiting 0.0") == 1
    output = (tmp_path / "out").read_text()
    assert output.count("authentication is off") == 1
