"""Admission to the database: bursts wait, overload does not."""

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from indexd import gauges as gauges
from indexd.app import create_app
from indexd.errors import Overloaded
from indexd.load.admission import (
    CALM,
    PROBATION,
    RETRY,
    RETRY_AT_MOST,
    Admission,
    Limits,
    Preference,
    State,
)
from indexd.settings import Settings
from tests.conftest import Client, document, service_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def admission(
    size: int = 1,
    length: int = 2,
    seconds: float = 5,
    *,
    cores: int | None = None,
    prefer: Preference = "latency",
    **rest: Any,
) -> Admission:
    return Admission(Limits(size, length, seconds, cores, prefer), **rest)


def is_shedding(gate: Admission) -> bool:
    return gate.state is State.SHEDDING


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_permits_come_in_order_and_no_more_at_a_time_than_allowed() -> None:
    gate, came, together, most = admission(size=2, length=10), [], 0, 0

    async def one(number: int) -> None:
        nonlocal together, most
        async with gate.permit():
            together += 1
            most = max(most, together)
            came.append(number)
            await asyncio.sleep(0)
            together -= 1

    await asyncio.gather(*(one(number) for number in range(10)))
    assert came == list(range(10))
    assert most == 2
    assert (gate.busy, gate.waiting) == (0, 0)


async def test_a_full_queue_refuses_at_once_and_says_why() -> None:
    refused: Counter[str] = Counter()
    gate = admission(refused=lambda why: refused.update([why]))
    async with gate.permit():
        waiting = [asyncio.create_task(_take(gate)) for _ in range(2)]
        await settle()
        with pytest.raises(Overloaded):
            await _take(gate)
    await asyncio.gather(*waiting)
    assert refused == {"queue": 1}
    assert (gate.busy, gate.waiting) == (0, 0)


async def test_waiting_ends_after_the_time_set() -> None:
    refused: Counter[str] = Counter()
    gate = admission(seconds=0.02, refused=lambda why: refused.update([why]))
    async with gate.permit():
        with pytest.raises(Overloaded):
            await _take(gate)
    assert refused == {"wait": 1}
    assert (gate.busy, gate.waiting) == (0, 0)


async def test_one_who_leaves_the_queue_takes_no_permit_away() -> None:
    gate = admission()
    async with gate.permit():
        first, second = (asyncio.create_task(_take(gate)) for _ in range(2))
        await settle()
        first.cancel()
        await settle()
        assert gate.waiting == 1
    await second
    # Cancelled in the moment the permit came.
    async with gate.permit():
        third = asyncio.create_task(_take(gate))
        await settle()
    third.cancel()
    with pytest.raises(asyncio.CancelledError):
        await third
    assert (gate.busy, gate.waiting) == (0, 0)


async def test_as_many_as_fit_may_wait_for_ever() -> None:
    clock = Clock()
    gate = admission(size=2, length=8, seconds=5, clock=clock)

    async def client() -> None:
        for _ in range(50):
            async with gate.permit():
                clock.now += 0.5
                await asyncio.sleep(0)

    await asyncio.gather(*(client() for _ in range(10)))
    assert not is_shedding(gate)


async def test_a_queue_that_overflowed_is_cut_short_until_it_is_calm() -> None:
    clock = Clock()
    gate = admission(size=4, length=8, seconds=5, clock=clock)
    tasks = [asyncio.create_task(_hold(gate)) for _ in range(12)]
    await settle()
    assert gate.waiting == 8
    with pytest.raises(Overloaded):
        await _take(gate)
    assert is_shedding(gate)
    for task in tasks:
        task.cancel()
    await settle()
    assert (gate.busy, gate.waiting) == (0, 0)

    async def wanted(number: int) -> int:
        tasks = [asyncio.create_task(_hold(gate)) for _ in range(number)]
        await settle()
        waits = gate.waiting
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return waits

    assert await wanted(12) == 0
    clock.now += CALM + 0.1
    assert await wanted(12) == 8


async def test_while_some_wait_fewer_work_at_a_time_and_all_again_afterwards() -> None:
    clock = Clock()
    gate = admission(size=8, length=100, cores=2, clock=clock)
    most = 0

    async def one() -> None:
        nonlocal most
        async with gate.permit():
            most = max(most, gate.busy)
            await asyncio.sleep(0)

    await asyncio.gather(*(one() for _ in range(8)))
    assert (most, gate.contended) == (8, False)
    most = 0
    holding = [asyncio.create_task(_hold(gate)) for _ in range(8)]
    await settle()
    waiting = [asyncio.create_task(one()) for _ in range(50)]
    await settle()
    assert gate.contended
    for task in holding:
        task.cancel()
    await asyncio.gather(*waiting)
    assert most == 5
    clock.now += CALM + 0.1
    most = 0
    await asyncio.gather(*(one() for _ in range(8)))
    assert (most, gate.contended) == (8, False)


async def test_while_some_wait_the_quick_ones_do_not_wait_for_those_that_take_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexd.load.admission.LONG", 0.02)
    gate = admission(size=8, length=100, cores=1)
    slow = [asyncio.create_task(_hold(gate)) for _ in range(9)]
    await settle()
    assert (gate.busy, gate.waiting, gate.contended) == (8, 1, True)
    await asyncio.sleep(0.1)
    slow[0].cancel()
    slow[1].cancel()
    await settle()
    assert (gate.busy, gate.waiting) == (7, 0)
    quick = [asyncio.create_task(_take(gate)) for _ in range(20)]
    await asyncio.wait_for(asyncio.gather(*quick), 5)
    more = [asyncio.create_task(_hold(gate)) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert (gate.busy, gate.waiting) == (8, 2)  # and never more than all
    for task in (*slow, *more):
        task.cancel()
    await asyncio.gather(*slow, *more, return_exceptions=True)
    assert (gate.busy, gate.waiting) == (0, 0)


async def test_an_overload_of_which_few_were_refused_is_over_on_probation() -> None:
    clock = Clock()
    gate = admission(size=2, length=8, clock=clock)
    holding = [asyncio.create_task(_hold(gate)) for _ in range(10)]
    await settle()
    assert gate.refuse_early()
    for task in holding:
        task.cancel()
    await settle()
    assert (is_shedding(gate), gate.busy) == (True, 0)

    async def second(refused: int, taken: int) -> None:
        """Requests within a second, of which some find that as many work as may."""
        for place in range(taken + refused):
            clock.now += CALM / 10
            if place < refused:
                gate.busy += 2
                assert gate.refuse_early()
                gate.busy -= 2
            else:
                await _take(gate)

    await second(refused=8, taken=4)
    assert is_shedding(gate)
    await second(refused=4, taken=12)
    assert not is_shedding(gate)
    few = [asyncio.create_task(_hold(gate)) for _ in range(4)]
    await settle()
    assert (gate.busy, gate.waiting) == (2, 2)
    assert gate.refuse_early()
    assert is_shedding(gate)
    for task in few:
        task.cancel()
    await settle()
    await second(refused=0, taken=12)
    clock.now += PROBATION
    many = [asyncio.create_task(_hold(gate)) for _ in range(10)]
    await settle()
    assert (gate.busy, gate.waiting, is_shedding(gate)) == (2, 8, False)
    for task in (*few, *many):
        task.cancel()
    await asyncio.gather(*holding, *few, *many, return_exceptions=True)


async def test_each_time_that_it_overflows_again_the_long_queue_is_tried_later() -> None:
    clock = Clock()
    gate = admission(size=1, length=3, clock=clock)
    held = [asyncio.create_task(_hold(gate)) for _ in range(2)]
    await settle()
    lasted = []
    for _ in range(7):
        more = [asyncio.create_task(_hold(gate)) for _ in range(2)]
        await settle()
        assert gate.refuse_early()
        began = clock.now
        for task in more:
            task.cancel()
        await settle()
        while gate.refuse_early():
            clock.now += 0.5
        lasted.append(clock.now - began)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert lasted[:3] == pytest.approx([RETRY, 2 * RETRY, 4 * RETRY], abs=1)
    assert lasted[-1] == pytest.approx(RETRY_AT_MOST, abs=1)


async def test_the_long_queue_is_tried_again_even_without_calm() -> None:
    clock = Clock()
    gate = admission(size=1, length=3, clock=clock)
    tasks = [asyncio.create_task(_hold(gate)) for _ in range(4)]
    await settle()
    for _ in range(int(RETRY / 0.5) + 1):
        with pytest.raises(Overloaded):
            await _take(gate)
        clock.now += 0.5
    assert gate.refuse_early()
    clock.now += RETRY
    tasks.pop().cancel()
    await settle()
    assert not gate.refuse_early()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_where_throughput_is_preferred_a_short_queue_keeps_the_database_busy() -> None:
    gate = admission(size=8, length=20, cores=1, prefer="throughput")
    held = [asyncio.create_task(_hold(gate)) for _ in range(8 + 20 + 5)]
    await settle()
    assert gate.refuse_early()
    assert is_shedding(gate)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    assert is_shedding(gate)
    few = [asyncio.create_task(_hold(gate)) for _ in range(6)]
    await settle()
    assert (gate.busy, gate.waiting) == (3, 3)
    assert gate.refuse_early()
    for task in few:
        task.cancel()
    await asyncio.gather(*few, return_exceptions=True)


async def test_an_overload_is_seen_in_the_log_and_in_the_metrics(settings: Settings) -> None:
    narrow = msgspec.structs.replace(settings, pool_size=1, queue_length=0)
    async with Client(create_app(narrow)) as client:
        with capture_logs() as logged:
            async with service_of(client.app).database.admission.permit():
                await client.post("/index/upsert", json=document("a", [1, 0]))
            gauges.sample_process(service_of(client.app))
            metrics = (await client.get("/metrics")).text
            assert 'index_overload_state{state="shedding"} 1.0' in metrics
            assert 'index_overload_state{state="normal"} 0.0' in metrics
            await asyncio.sleep(CALM + 0.1)
            await client.post("/index/upsert", json=document("a", [1, 0]))
            gauges.sample_process(service_of(client.app))
        told = [line for line in logged if line["event"].startswith("overload")]
        assert [line["event"] for line in told] == [
            "overload begins: requests are refused",
            "overload ends",
        ]
        assert told[1]["refused"] == 1
        metrics = (await client.get("/metrics")).text
        assert 'index_overload_state{state="normal"} 1.0' in metrics


async def _take(gate: Admission) -> None:
    async with gate.permit():
        pass


async def _hold(gate: Admission) -> None:
    async with gate.permit():
        await asyncio.sleep(60)


async def test_an_overload_is_a_503_that_says_when_to_come_back(settings: Settings) -> None:
    narrow = msgspec.structs.replace(settings, pool_size=1, queue_length=0)
    app = create_app(narrow)
    async with Client(app) as client:
        service = service_of(app)
        async with service.database.admission.permit():
            answer = await client.post("/index/upsert", json=document("a", [1, 0]))
            assert answer.status_code == 503
            assert answer.json()["code"] == "overloaded"
            assert answer.headers["retry-after"] == "1"
            assert (await client.get("/readyz")).status_code == 200
            metrics = (await client.get("/metrics")).text
            assert 'index_requests_rejected_total{reason="queue"} 1.0' in metrics
        answer = await client.post("/index/upsert", json=document("a", [1, 0]))
        assert answer.status_code == 200


async def test_more_requests_than_are_held_at_once_are_refused_unread(settings: Settings) -> None:
    from indexd.api.in_flight import InFlight

    app = create_app(msgspec.structs.replace(settings, max_requests=1))
    held = next(one for one in app.middleware if isinstance(one, InFlight))
    async with Client(app) as client:
        held.bounds.requests.take("another")
        answer = await client.post("/index/upsert", json=document("a", [1, 0]))
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        assert (await client.get("/healthz")).status_code == 200
        held.bounds.requests.give_back("another")
        answer = await client.post("/index/upsert", json=document("a", [1, 0]))
        assert answer.status_code == 200


async def test_what_holds_a_document_too_long_is_a_503(settings: Settings, clone: object) -> None:
    impatient = msgspec.structs.replace(settings, lock_timeout_seconds=0.1)
    async with Client(create_app(impatient)) as client:
        await client.post("/index/upsert", json=document("a", [1, 0]))
        clone.execute("SELECT FROM indexd.documents FOR UPDATE")  # type: ignore[attr-defined]
        answer = await client.post("/index/delete", json={"doc_id": "a", "namespace": "notes"})
        clone.rollback()  # type: ignore[attr-defined]
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert answer.headers["retry-after"]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/index/upsert", document("a", [1, 0], [1, 0], [1, 0]), "chunks"),
        ("/index/upsert", document("a", [1, 0], texts=["x" * 101]), "chunks[0].text"),
        ("/index/search", {"query": "x" * 101}, "query"),
        ("/index/search", {"query": {"text": "x" * 101}}, "query"),
        ("/index/search", {"query": "x", "filters": {"tags": ["a", "b", "c"]}}, "filters.tags"),
        (
            "/index/forget",
            {"filter": {"tags": ["a", "b", "c"]}, "reason": "r", "dry_run": True},
            "filter.tags",
        ),
        (
            "/embed/text",
            {"text": "x" * 101, "namespace": "docs", "source_ref": "r"},
            "text",
        ),
    ],
)
async def test_counts_and_sizes_have_limits(
    settings: Settings, path: str, body: dict[str, object], named: str
) -> None:
    tight = msgspec.structs.replace(settings, max_chunks=2, max_text_chars=100, max_filter_values=2)
    async with Client(create_app(tight)) as client:
        answer = await client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_field")
        assert answer.json()["error"].startswith(named)
        assert (await client.get("/index/stats")).json()["total_documents"] == 0
