"""Database URLs."""

import pytest

from indexd.urls import is_on_this_machine


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
