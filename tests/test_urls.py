"""Database URLs."""

import pytest
from click.testing import CliRunner

from indexd.cli import commands
from indexd.errors import ConfigurationError
from indexd.urls import is_on_this_machine, require_valid


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("/indexd", True),
        ("localhost/indexd", True),
        ("user:secret@127.0.0.1:5433/indexd", True),
        ("[::1]/indexd", True),
        ("/indexd?host=/run/postgresql", True),
        ("postgres:5432/indexd", False),
        ("10.0.0.1/indexd", False),
        ("localhost,standby/indexd", False),
    ],
)
def test_whether_the_database_is_on_this_machine_is_told_by_its_host(
    rest: str, expected: bool
) -> None:
    assert is_on_this_machine(f"postgresql://{rest}") is expected


@pytest.mark.parametrize(
    "rest",
    [
        "own%zzpw@db.example/indexd",
        "own%zzpw@db.example/indexd?sslmode=require",
        "own/pw@db.example/indexd",
        "own[pw@db.example/indexd",
        "host@own@db.example/indexd",
        "x@db.example/indexd?password=own%zz",
    ],
)
def test_a_password_that_libpq_cannot_read_is_not_printed(rest: str) -> None:
    refused = CliRunner().invoke(commands, ["doctor", "--database-url", f"postgresql://u:{rest}"])
    assert isinstance(refused.exception, ConfigurationError)
    assert "own" not in refused.output + refused.exception.message
    assert "are written as %25, %40, %3A and %2F" in refused.exception.message


@pytest.mark.parametrize(
    "rest",
    [
        "/indexd",
        "u:own%25pw@[::1]:5433/indexd",
        "u@one:5432,two:5433/indexd?target_session_attrs=read-write",
        "/indexd?host=/run/postgresql&port=5433",
    ],
)
def test_a_url_that_libpq_reads_is_taken(rest: str) -> None:
    require_valid(f"postgresql://{rest}")
