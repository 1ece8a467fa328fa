"""What the database lacks, told as what it is: disk, memory, connections, a limit of its own."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Client, Sql, document

SMALL = "size=6m"
"""Of the tablespace that fills up."""


def refuse(own_sql: Sql, state: str) -> None:
    """Have every insert of a document fail with this SQLSTATE."""
    own_sql(f"""
        CREATE OR REPLACE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'as the test wants it' USING ERRCODE = '{state}'; END $$
    """)
    own_sql("""
        CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON indexd.documents
        FOR EACH ROW EXECUTE FUNCTION public.refuse()
    """)


@pytest.mark.parametrize(
    ("state", "code", "said"),
    [
        ("25006", "read_only", "takes no writes"),
        ("25P04", "database_unavailable", "the transaction took longer"),
        ("42501", "insufficient_privilege", "lacks a right"),
        ("53000", "database_unavailable", "lacks a resource"),
        ("53100", "disk_full", "no disk space"),
        ("53200", "database_unavailable", "out of memory"),
        ("53300", "database_unavailable", "no connection left"),
        ("53400", "database_unavailable", "limit in the database's configuration"),
    ],
)
async def test_what_the_database_lacks_is_told_as_what_it_is(
    own_client: Client, own_sql: Sql, state: str, code: str, said: str
) -> None:
    refuse(own_sql, state)
    answer = await own_client.post("/index/upsert", json=document("a", [1, 0]))
    assert (answer.status_code, answer.json()["code"]) == (503, code)
    assert said in answer.json()["error"]
    assert int(answer.headers["retry-after"]) >= 1


async def test_readyz_and_metrics_tell_of_a_full_disk_until_a_write_succeeds(
    own_client: Client, own_sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(own_sql, "53100")
    for _ in range(3):
        await own_client.post("/index/upsert", json=document("a", [1, 0]))
    await own_client.post("/index/delete", json={"doc_id": "b", "namespace": "notes"})
    ready = await own_client.get("/readyz")
    assert ready.status_code == 200
    assert "writes: refused (the last one, " in ready.text
    assert "no disk space" in ready.text
    own_sql("DROP TRIGGER refuse ON indexd.documents")
    await own_client.post("/index/upsert", json=document("a", [1, 0]))
    assert "writes: ok (taken)" in (await own_client.get("/readyz")).text
    assert [record.message for record in caplog.records] == [
        "the database refuses a statement, disk_full: as the test wants it",
        "the database takes writes again",
    ]


@pytest.fixture
def small_disk(own_sql: Sql, tmp_path: Path) -> Iterator[str]:
    """The name of a tablespace on a file system of its own, of a few MiB."""
    [(data,)] = own_sql("SHOW data_directory")
    owner = Path(data).owner()
    folder = Path(data).parent / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", SMALL, "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("this user may not mount a file system")
    try:
        subprocess.run(["chown", owner, folder], check=True)
        own_sql(f"CREATE TABLESPACE small LOCATION '{folder}'")
        yield "small"
        own_sql("ALTER TABLE indexd.chunks SET TABLESPACE pg_default")
        own_sql("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


async def test_a_disk_that_is_really_full_refuses_writes_and_serves_searches(
    own_client: Client,
    own_sql: Sql,
    small_disk: str,
    rng: np.random.Generator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own_sql(f"ALTER TABLE indexd.chunks SET TABLESPACE {small_disk}")
    for n in range(100):
        noise = rng.bytes(100_000).hex()  # which cannot be compressed to less than half
        body = document(f"d{n}", [1, n], metas=[{"noise": noise}])
        answer = await own_client.post("/index/upsert", json=body)
        if answer.status_code != 200:
            break
    assert (answer.status_code, answer.json()["code"]) == (503, "disk_full")
    assert "No space left on device" in caplog.text
    assert "no disk space" in (await own_client.get("/readyz")).text
    answer = await own_client.post(
        "/index/search", json={"namespace": "notes", "embedding": [1, 0]}
    )
    assert answer.json()["results"][0]["doc_id"] == "d0"
