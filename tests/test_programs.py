"""PostgreSQL's own programs, as the command line starts them."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from indexd import embedded
from indexd.cli import commands


@pytest.mark.parametrize(
    ("program", "words"),
    [("psql", ["psql", "-c", "SELECT 1"]), ("pg_dump", ["backup", "memory.backup"])],
)
@pytest.mark.parametrize("where", ["in the URL", "in a file"])
def test_a_password_is_in_no_arguments(
    program: str, words: list[str], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / program).write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" > arguments\nprintf %s "$PGPASSWORD" > password\n'
    )
    (tmp_path / program).chmod(0o755)
    monkeypatch.setattr(embedded, "BINARIES", tmp_path)
    monkeypatch.chdir(tmp_path)
    url = "postgresql://indexd@db.example:5433/memory?sslmode=require"
    if where == "in the URL":
        url = url.replace("indexd@", "indexd:s%20cret@")
    else:
        Path("file").write_text("s cret\n")
        monkeypatch.setenv("INDEXD_DATABASE_PASSWORD_FILE", "file")
    found = CliRunner().invoke(commands, [*words, "--database-url", url])
    assert found.exit_code == 0, found.output
    assert Path("password").read_text() == "s cret"
    [target, *_] = Path("arguments").read_text().splitlines()
    for part in ("user=indexd", "dbname=memory", "host=db.example", "port=5433", "sslmode=require"):
        assert part in target
    assert "cret" not in Path("arguments").read_text()
