"""Least privilege: a role that owns the schema and migrates, and one that serves with DML only."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from click.testing import CliRunner
from structlog.testing import CapturingLogger

from indexd.app import create_app
from indexd.background import index_keeper
from indexd.cli import commands
from indexd.db import migrate, revisions
from indexd.db.embedded import BINARIES
from indexd.db.sessions import maintenance
from indexd.settings import Settings
from tests.conftest import Client, command, document
from tests.test_access import ROUTES, about
from tests.test_keys import bearer, keys
from tests.test_serve import serving

OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"

SILENT = subprocess.DEVNULL


class Roles(NamedTuple):
    """The URLs of one database as its superuser, as the schema's owner, and as the service."""

    superuser: str
    owner: str
    service: str


def as_role(url: str, role: str) -> str:
    return url.replace("//postgres@", f"//{role}@")


@pytest.fixture
def roles(clone: psycopg.Connection[Any], url: str) -> Iterator[Roles]:
    """As a DBA prepares it: an empty schema of the owner's, who may create nothing else."""
    clone.autocommit = True
    for role in ("indexd_owner", "indexd_service"):
        clone.execute(f"CREATE ROLE {role} LOGIN")
    clone.execute("DROP SCHEMA indexd CASCADE")
    clone.execute("CREATE SCHEMA indexd AUTHORIZATION indexd_owner")
    yield Roles(url, as_role(url, "indexd_owner"), as_role(url, "indexd_service"))
    for role in ("indexd_owner", "indexd_service"):
        clone.execute(f"DROP OWNED BY {role} CASCADE")
        clone.execute(f"DROP ROLE {role}")


@pytest.fixture
def granted(roles: Roles) -> Roles:
    """The same, migrated by the owner, with the service's rights as the command prints them."""
    migrate.upgrade(roles.owner)
    psql(roles.owner, printed_grants())
    return roles


def printed_grants() -> str:
    found = CliRunner().invoke(commands, ["db", "grant", "indexd_service"])
    assert found.exit_code == 0, found.output
    return found.output


def settings_of(roles: Roles) -> Settings:
    return Settings(
        database_url=roles.service, pool_size=4, keeper_interval_seconds=0.2, index_threshold=2
    )


async def filled(client: Client) -> None:
    for n in range(3):
        answer = await client.post("/index/upsert", json=document(f"d{n}", [1, n]))
        assert answer.status_code == 200, answer.text


async def index_of(client: Client) -> tuple[str, str | None]:
    details = (await client.get("/index/stats")).json()["details"]["notes"]
    return details["index"], details["index_note"]


def psql(url: str, script: str) -> None:
    subprocess.run(
        [BINARIES / "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", url],
        input=script,
        text=True,
        check=True,
        stdout=SILENT,
    )


def test_a_role_that_owns_the_schema_alone_migrates_and_checks(roles: Roles) -> None:
    command(roles.owner, "db", "upgrade")
    assert command(roles.owner, "db", "current").startswith(revisions.head())
    command(roles.owner, "db", "check")
    command(roles.owner, "db", "downgrade", "0013")
    command(roles.owner, "db", "upgrade")
    assert "schema: ok" in command(roles.owner, "doctor")


def test_a_role_that_owns_the_schema_alone_runs_the_printed_migrations(
    roles: Roles, capsys: pytest.CaptureFixture[str]
) -> None:
    migrate.sql("head")
    psql(roles.owner, capsys.readouterr().out)
    migrate.check(roles.owner)


def test_a_role_that_may_not_make_the_schema_is_told_so(roles: Roles) -> None:
    with psycopg.connect(roles.superuser, autocommit=True) as superuser:
        superuser.execute("DROP SCHEMA indexd")
    with pytest.raises(Exception, match="permission denied for database"):
        migrate.upgrade(roles.owner)


async def test_a_role_with_dml_only_serves_every_route(granted: Roles) -> None:
    async with Client(create_app(settings_of(granted))) as client:
        for route in ROUTES:
            if route.path == "/embed/text":
                continue  # there is no embedder
            await client.post("/index/upsert", json=document("a", [1, 0]))
            answer = await client.request(route.method, route.path, **about(route, "notes"))
            assert answer.status_code == 200, (route, answer.text)


async def test_the_owner_builds_the_indexes_that_the_service_may_not(
    granted: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = CapturingLogger()
    monkeypatch.setattr(index_keeper, "log", said)
    async with Client(create_app(settings_of(granted))) as client:
        await filled(client)
        await asyncio.sleep(1)
        index, note = await index_of(client)
        assert index == "exact"
        assert note is not None
        assert "run `indexd index build` as the role that owns the tables" in note
        assert [call.args for call in said.calls] == [("indexes are not built here",)]
        found = await asyncio.to_thread(command, granted.service, "doctor")
        assert "run `indexd index build` as the role that owns the tables" in found

        async with maintenance(granted.owner, "indexd test") as owner:
            await index_keeper.keep_once(owner, index_keeper.rules(settings_of(granted)))
        assert await index_of(client) == ("hnsw", None)
        answer = await client.post(
            "/index/search", json={"namespace": "notes", "embedding": [1, 2], "k": 1}
        )
        assert answer.json()["results"][0]["doc_id"] == "d2"


def test_index_build_without_a_namespace_builds_what_is_earned(
    granted: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(granted.service) as service:
        service.execute("INSERT INTO indexd.namespaces VALUES ('notes', 2, 0, 5, now())")
    monkeypatch.setenv("INDEXD_INDEX_THRESHOLD", "5")
    refused = CliRunner().invoke(commands, ["index", "build", "--database-url", granted.service])
    assert "the role indexd_service may not build or drop it" in str(refused.exception)
    assert "exact" in command(granted.service, "index", "status")
    command(granted.owner, "index", "build")
    assert "hnsw" in command(granted.service, "index", "status")


def test_the_service_may_not_change_the_schema(granted: Roles) -> None:
    with psycopg.connect(granted.service, autocommit=True) as service:
        for statement in (
            "CREATE TABLE indexd.x ()",
            "DROP TABLE indexd.chunks",
            "TRUNCATE indexd.forget_events",
            "UPDATE indexd.alembic_version SET version_num = '1'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                service.execute(statement)


async def test_a_table_of_a_later_migration_is_the_services_without_a_new_grant(
    granted: Roles,
) -> None:
    migrate.downgrade(granted.owner, "0003")
    migrate.upgrade(granted.owner)
    async with Client(create_app(settings_of(granted))) as client:
        await filled(client)
        answer = await client.post("/index/delete", json={"doc_id": "d0", "namespace": "notes"})
        assert answer.status_code == 200


def test_the_service_makes_and_revokes_keys(granted: Roles, tmp_path: Path) -> None:
    with serving(tmp_path, "--database-url", granted.service, INDEXD_AUTH="keys") as (client, _):
        made = keys(granted.service, "create", "agent")
        assert client.get("/index/stats", headers=bearer(made.stdout)).status_code == 200
        revoked = keys(granted.service, "revoke", "agent")
        assert "known to all servers there are: 1" in revoked.stdout, revoked.stderr


def test_the_documented_grants_are_those_that_the_command_prints() -> None:
    assert f"```sql\n{printed_grants()}```" in OPERATIONS.read_text()


async def test_a_missing_right_is_told_as_that_and_logged_once_with_its_object(
    granted: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    async with Client(create_app(settings_of(granted))) as client:
        await filled(client)
        psql(granted.owner, "REVOKE INSERT ON indexd.documents FROM indexd_service;")
        for n in range(3):
            answer = await client.post("/index/upsert", json=document(f"e{n}", [1, n]))
            assert (answer.status_code, answer.json()["code"]) == (503, "insufficient_privilege")
            assert "lacks a right" in answer.json()["error"]
            assert answer.headers["retry-after"]
        assert [record.message for record in caplog.records] == [
            "the database refuses a statement, insufficient_privilege: "
            "permission denied for table documents"
        ]
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        assert "writes: refused (the last one, " in ready.text
        psql(granted.owner, "GRANT INSERT ON indexd.documents TO indexd_service;")
        await client.post("/index/upsert", json=document("e0", [1, 1]))
        assert "writes: ok (taken)" in (await client.get("/readyz")).text
