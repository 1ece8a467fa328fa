"""Semantic forgetting: what searches showed of a document, and what follows from it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from indexd.app import create_app
from indexd.db.pool import Database
from indexd.settings import Settings
from tests.conftest import Client, document, service_of

pytestmark = pytest.mark.slow

START = datetime(2026, 6, 1, tzinfo=UTC)
SEMANTIC = "semantic: {min_score: 0.6, min_age_seconds: 86400, min_exposures: 3, min_days: 2}"


class Clock:
    now = START

    def __call__(self) -> datetime:
        return self.now

    def wait(self, days: float) -> None:
        self.now += timedelta(days=days)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def notes(settings: Settings, tmp_path: Path, clock: Clock) -> AsyncIterator[Client]:
    """`notes` may hold three documents, `wide` any number; `plain` has no semantic policy."""
    file = tmp_path / "policies.yaml"
    file.write_text(
        f"namespaces: {{notes: {{max_items: 3, purge_strategy: lowest_score, {SEMANTIC}}},"
        f" wide: {{{SEMANTIC}}}}}"
    )
    changed = Settings(
        database_url=settings.database_url,
        policies=str(file),
        pool_size=4,
        relevance_flush_seconds=3600,
        relevance_limit=50,
    )
    app = create_app(changed, now=clock)
    async with Client(app) as client:
        yield client


async def flush(client: Client) -> None:
    service = service_of(client.app)
    await client.within(service.exposures.flush(service.database, service.now()))


async def put(client: Client, doc_id: str, *vector: float, **rest: Any) -> dict[str, Any]:
    answer = await client.post("/index/upsert", json=document(doc_id, vector, **rest))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def search(client: Client, *vector: float, k: int = 10, namespace: str = "notes") -> Any:
    answer = await client.post(
        "/index/search", json={"namespace": namespace, "embedding": vector, "k": k}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


async def expose(client: Client, clock: Clock, *vector: float) -> None:
    """Four searches on two days."""
    for _ in range(2):
        clock.wait(1)
        for _ in range(2):
            await search(client, *vector)
        await flush(client)


async def irrelevant(client: Client) -> list[dict[str, Any]]:
    answer = await client.get("/index/irrelevant", params={"namespace": "notes"})
    found: list[dict[str, Any]] = answer.json()["documents"]
    return found


async def lifecycle(client: Client, doc_id: str) -> dict[str, Any]:
    answer = await client.get("/index/lifecycle", params={"namespace": "notes", "doc_id": doc_id})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_one_offered_often_and_never_good_is_marked_with_the_evidence(
    notes: Client, clock: Clock
) -> None:
    await put(notes, "good", 1, 0)
    await put(notes, "bad", 0, 1)
    await expose(notes, clock, 1, 0)
    [marked] = await irrelevant(notes)
    assert marked["doc_id"] == "bad"
    assert (marked["exposures"], marked["hits"], marked["days"]) == (4, 0, 2)
    assert marked["best_score"] == pytest.approx(0, abs=1e-6)
    assert marked["smoothed_score"] == pytest.approx(0.5 * 0.9**4)
    assert (await lifecycle(notes, "bad"))["irrelevant_since"] is not None
    assert (await lifecycle(notes, "good"))["relevance"] == pytest.approx(1 - 0.5 * 0.9**4)


@pytest.mark.parametrize("lacking", ["age", "exposures", "days"])
async def test_marking_takes_age_exposures_and_days(
    notes: Client, clock: Clock, lacking: str
) -> None:
    born = clock.now + timedelta(days=10) if lacking == "age" else clock.now
    await put(notes, "bad", 0, 1, ingested_at=born.isoformat())
    for day in range(3):
        clock.wait(0.01 if lacking == "days" else 1)
        for _ in range(3 if lacking != "exposures" or day == -1 else 0):
            await search(notes, 1, 0)
        if lacking == "exposures" and day < 2:
            await search(notes, 1, 0)
        await flush(notes)
    assert await irrelevant(notes) == []


async def test_a_good_hit_unmarks(notes: Client, clock: Clock) -> None:
    await put(notes, "bad", 0, 1)
    await expose(notes, clock, 1, 0)
    assert len(await irrelevant(notes)) == 1
    await search(notes, 0, 1)
    await flush(notes)
    assert await irrelevant(notes) == []


async def test_feedback_has_the_last_word(notes: Client, clock: Clock) -> None:
    await put(notes, "bad", 0, 1)

    async def judge(useful: bool) -> None:
        body = {"doc_id": "bad", "namespace": "notes", "useful": useful}
        assert (await notes.post("/index/feedback", json=body)).json() == {"status": "accepted"}

    await judge(False)
    assert [one["judged_useful"] for one in await irrelevant(notes)] == [False]
    await search(notes, 0, 1)
    await flush(notes)
    assert len(await irrelevant(notes)) == 1
    await judge(True)
    assert await irrelevant(notes) == []
    await expose(notes, clock, 1, 0)
    assert await irrelevant(notes) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"doc_id": "none", "namespace": "notes", "useful": True}, 404),
        ({"doc_id": "bad", "namespace": "elsewhere", "useful": True}, 404),
        ({"doc_id": "bad", "namespace": "notes"}, 400),
        ({"doc_id": "bad", "namespace": "notes", "useful": "yes"}, 400),
        ({"namespace": "notes", "useful": True}, 400),
    ],
)
async def test_bad_feedback_is_refused(notes: Client, body: dict[str, Any], status: int) -> None:
    await put(notes, "bad", 0, 1)
    assert (await notes.post("/index/feedback", json=body)).status_code == status


async def test_marked_documents_are_found_say_so_and_leave_first(
    notes: Client, clock: Clock
) -> None:
    await put(notes, "oldest", 1, 0.1)
    clock.wait(1)
    await put(notes, "bad", 0, 1)
    await expose(notes, clock, 1, 0)
    rationale = {hit["doc_id"]: hit["rationale"] for hit in await search(notes, 1, 0)}
    assert rationale["bad"][-1].startswith("Marked irrelevant since 2026-06-")
    assert len(rationale["oldest"]) == 1
    assert (await lifecycle(notes, "bad"))["purge_rank"] == 1
    assert (await lifecycle(notes, "oldest"))["purge_rank"] == 2
    await put(notes, "third", 1, 0.2)
    answer = await put(notes, "fourth", 1, 0.3)
    assert answer["forgotten"] == {"ttl": 0, "retention": 0, "semantic": 1}
    left = sorted(hit["doc_id"] for hit in await search(notes, 1, 0))
    assert left == ["fourth", "oldest", "third"]
    [event] = (await notes.get("/index/audit")).json()["events"]
    assert event["kind"] == "semantic"
    metrics = (await notes.get("/metrics")).text
    assert 'index_items_forgotten_total{namespace="notes",reason="semantic"} 1.0' in metrics


async def test_the_less_relevant_leave_before_those_nobody_has_met(
    notes: Client, clock: Clock
) -> None:
    await put(notes, "good", 1, 0)
    await put(notes, "poor", 0.5, 1)
    await search(notes, 1, 0)
    await flush(notes)
    clock.wait(1)
    await put(notes, "unmet", 1, 0)
    await put(notes, "new", 1, 0)
    left = sorted(hit["doc_id"] for hit in await search(notes, 1, 0))
    assert left == ["good", "new", "unmet"]


async def test_new_content_starts_anew(notes: Client, clock: Clock) -> None:
    await put(notes, "bad", 0, 1)
    await expose(notes, clock, 1, 0)
    await put(notes, "bad", 0, 2, half_life_seconds=1e9)
    assert await irrelevant(notes) == []
    assert (await lifecycle(notes, "bad"))["relevance"] == 0.5


async def test_without_a_semantic_policy_nothing_is_recorded(notes: Client, url: str) -> None:
    await put(notes, "a", 1, 0, namespace="plain")
    await search(notes, 1, 0, namespace="plain")
    await flush(notes)
    with psycopg.connect(url) as admin:
        assert admin.execute("SELECT count(*) FROM indexd.relevance").fetchone() == (0,)


async def test_what_does_not_fit_into_memory_is_counted(notes: Client) -> None:
    await fill(notes, "wide")
    await search(notes, 1, 0, k=61, namespace="wide")
    metrics = (await notes.get("/metrics")).text
    assert "index_exposures_dropped_total 11.0" in metrics


async def fill(client: Client, namespace: str) -> None:
    """61 documents, 11 more than exposures are held."""
    for n in range(61):
        await put(client, f"d{n:02}", 1.0, n / 100, namespace=namespace)


class Counting:
    """The application's database; counts the transactions that write."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.writes = 0

    async def write(self, work: Any) -> Any:
        self.writes += 1
        return await self._database.write(work)


async def writes_of_flush(client: Client) -> int:
    service = service_of(client.app)
    counting = Counting(service.database)
    await client.within(service.exposures.flush(cast(Database, counting), service.now()))
    return counting.writes


async def test_searches_of_which_nothing_counts_cost_no_transaction(notes: Client) -> None:
    await put(notes, "a", 1, 0, namespace="plain")
    for namespace in ("plain", "wide", *(f"made up {n}" for n in range(60))):
        await search(notes, 1, 0, namespace=namespace)
    assert await writes_of_flush(notes) == 0


async def test_a_flush_is_one_transaction_per_namespace_that_counts(notes: Client) -> None:
    for namespace in ("notes", "wide", "plain"):
        await put(notes, "a", 1, 0, namespace=namespace)
        await put(notes, "b", 0, 1, namespace=namespace)
        for _ in range(2):
            await search(notes, 1, 0, namespace=namespace)
    assert await writes_of_flush(notes) == 2
    assert await writes_of_flush(notes) == 0


async def test_hits_that_nobody_counts_do_not_crowd_out_those_that_count(
    notes: Client, url: str
) -> None:
    await fill(notes, "plain")
    await put(notes, "a", 1, 0)
    await search(notes, 1, 0, k=61, namespace="plain")
    await search(notes, 1, 0)
    await flush(notes)
    assert "index_exposures_dropped_total 0.0" in (await notes.get("/metrics")).text
    with psycopg.connect(url) as admin:
        counted = admin.execute("SELECT namespace, doc_id FROM indexd.relevance").fetchall()
    assert counted == [("notes", "a")]


async def test_a_document_that_left_takes_its_relevance_along(
    notes: Client, clock: Clock, url: str
) -> None:
    await put(notes, "bad", 0, 1)
    await search(notes, 1, 0)
    await notes.post("/index/delete", json={"doc_id": "bad", "namespace": "notes"})
    await flush(notes)
    await put(notes, "bad", 0, 1)
    await search(notes, 1, 0)
    await flush(notes)
    await notes.post("/index/delete", json={"doc_id": "bad", "namespace": "notes"})
    with psycopg.connect(url) as admin:
        assert admin.execute("SELECT count(*) FROM indexd.relevance").fetchone() == (0,)
