"""What an admin sees in psql agrees with what the API answers."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from indexd.app import create_app
from indexd.settings import Settings
from tests.conftest import Client, Sql, document

pytestmark = pytest.mark.slow


async def fill(client: Client) -> None:
    now = datetime.now(UTC)
    for n, own in enumerate([None, 86_400.0, None, 864_000.0]):
        moment = (now - timedelta(days=10 * n)).isoformat()
        body = document(f"d{n}", [1, n], ingested_at=moment, half_life_seconds=own)
        assert (await client.post("/index/upsert", json=body)).status_code == 200


POLICY = """
namespaces:
  notes: {half_life_seconds: 2592000, max_items: 4, purge_strategy: lowest_score}
"""


@pytest.fixture
async def filled(settings: Settings, tmp_path: Path) -> Any:
    file = tmp_path / "policies.yaml"
    file.write_text(POLICY)
    changed = Settings(database_url=settings.database_url, policies=str(file), pool_size=4)
    async with Client(create_app(changed)) as client:
        await fill(client)
        yield client


async def test_documents_by_decay_is_the_decay_preview(filled: Client, own_sql: Sql) -> None:
    answer = await filled.post("/index/decay/preview", json={"namespace": "notes"})
    rows = own_sql(
        "SELECT doc_id, half_life_seconds, decay_factor FROM indexd.documents_by_decay"
        " ORDER BY decay_factor, doc_id"
    )
    previews = answer.json()["previews"]
    assert [row[0] for row in rows] == [one["doc_id"] for one in previews]
    assert [row[2] for row in rows] == pytest.approx(
        [one["decay_factor"] for one in previews], rel=1e-3
    )
    assert {row[1] for row in rows} == {2_592_000.0, 86_400.0, 864_000.0}


async def test_purge_order_is_the_rank_of_lifecycle(filled: Client, own_sql: Sql) -> None:
    for place, doc_id in own_sql("SELECT place, doc_id FROM indexd.purge_order"):
        params = {"namespace": "notes", "doc_id": doc_id}
        answer = await filled.get("/index/lifecycle", params=params)
        assert answer.json()["purge_rank"] == place


async def test_retention_status_counts_what_the_preview_names(filled: Client, own_sql: Sql) -> None:
    own_sql("UPDATE indexd.retention_policies SET max_items = 1, max_age_seconds = 2500000")
    [found] = own_sql(
        "SELECT documents, expired, surplus, purge_strategy FROM indexd.retention_status"
    )
    answer = await filled.post("/index/retention/preview", json={})
    reasons = [one["reason"] for one in answer.json()["namespaces"]["notes"]["would_forget"]]
    assert found == (4, reasons.count("ttl"), reasons.count("retention"), "lowest_score")
    assert found[1:3] == (1, 2)


async def test_forget_log_names_every_document_that_left(filled: Client, own_sql: Sql) -> None:
    await filled.post("/index/delete", json={"doc_id": "d1", "namespace": "notes"})
    assert own_sql("SELECT namespace, doc_id, kind, actor FROM indexd.forget_log") == [
        ("notes", "d1", "delete", "anonymous")
    ]


def test_every_table_view_and_function_says_what_it_is_for(own_sql: Sql) -> None:
    silent = own_sql("""
        SELECT relname
          FROM pg_class
         WHERE relnamespace = 'indexd'::regnamespace
           AND relkind IN ('r', 'v')
           AND relname <> 'alembic_version'
           AND obj_description(oid, 'pg_class') IS NULL
        UNION ALL
        SELECT proname
          FROM pg_proc
         WHERE pronamespace = 'indexd'::regnamespace
           AND obj_description(oid, 'pg_proc') IS NULL
    """)
    assert silent == []
