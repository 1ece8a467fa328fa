"""Least privilege: a role that owns the schema and migrates, and one that serves with DML only."""

import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest

from indexd import migrate
from indexd.cli.programs import program
from tests.conftest import command

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


def psql(url: str, script: str) -> None:
    subprocess.run(
        [program("psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", url],
        input=script,
        text=True,
        check=True,
        stdout=SILENT,
    )


def test_a_role_that_owns_the_schema_alone_migrates_and_checks(roles: Roles) -> None:
    command(roles.owner, "db", "upgrade")
    assert command(roles.owner, "db", "current").startswith(migrate.head())
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
