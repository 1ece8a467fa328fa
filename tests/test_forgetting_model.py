"""Whatever is upserted, deleted, forgotten, as time goes on: the documents that a model says.

The model is the specification of retention in a few lines, one write after the other; the audit
must account for every document that is gone.
"""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from indexd.app import create_app
from indexd.policy import Policy
from indexd.settings import Settings
from tests.conftest import Client, document

pytestmark = pytest.mark.slow

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400.0
IDS = [f"d{n}" for n in range(8)]

POLICIES = [
    Policy(),
    Policy(max_age_seconds=3 * DAY),
    Policy(max_items=3, purge_strategy="oldest"),
    Policy(max_items=4, max_age_seconds=5 * DAY, purge_strategy="oldest"),
    Policy(half_life_seconds=DAY, max_items=3, purge_strategy="lowest_score"),
    Policy(max_items=3, purge_strategy="lowest_score"),
    Policy(max_items=3, purge_strategy="oldest", grace_seconds=DAY),
]


class Model:
    """Documents by id: ingested_at, own half-life, content."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.documents: dict[str, tuple[datetime, float | None, int]] = {}
        self.gone: Counter[str] = Counter()

    def write(
        self,
        doc_id: str,
        given: datetime | None,
        half_life: float | None,
        content: int,
        at: datetime,
    ) -> None:
        old = self.documents.get(doc_id)
        if not (old and old[1:] == (half_life, content) and given in (None, old[0])):
            self.documents[doc_id] = (given or at, half_life, content)
        self.retain(doc_id, at)

    def retain(self, protected: str, at: datetime) -> None:
        policy, others = self.policy, self.documents.keys() - {protected}
        if policy.max_age_seconds is not None:
            limit = at - timedelta(seconds=policy.max_age_seconds)
            self.take([d for d in others if self.documents[d][0] < limit], "ttl")
        if policy.max_items is not None:
            others &= self.documents.keys()
            if policy.grace_seconds:
                grace = at - timedelta(seconds=policy.grace_seconds)
                others = {d for d in others if self.documents[d][0] <= grace}
            excess = max(len(self.documents) - policy.max_items, 0)
            order = sorted(others, key=lambda d: self.purge_key(d, at))
            self.take(order[:excess], "retention")

    def purge_key(self, doc_id: str, at: datetime) -> tuple[float, datetime, str]:
        ingested_at, own, _ = self.documents[doc_id]
        half_life = own or self.policy.half_life_seconds
        age = max((at - ingested_at).total_seconds(), 0)
        decay = 0.5 ** (age / half_life) if half_life else 1.0
        by_score = self.policy.purge_strategy == "lowest_score"
        return (decay if by_score else 0.0, ingested_at, doc_id)

    def take(self, doc_ids: list[str], kind: str) -> None:
        for doc_id in doc_ids:
            del self.documents[doc_id]
            self.gone[kind] += 1


def test_any_history_leaves_what_the_model_says(url: str, tmp_path: Path) -> None:
    loop = asyncio.new_event_loop()
    clock = [START]
    app = create_app(
        Settings(database_url=url, pool_size=4, keeper_interval_seconds=3600),
        now=lambda: clock[0],
    )
    client: Any = Client(app)
    admin = psycopg.connect(url, autocommit=True)

    def call(path: str, body: Any) -> Any:
        answer = loop.run_until_complete(client.post(path, json=body))
        assert answer.status_code == 200, answer.text
        return answer.json()

    written = st.tuples(
        st.sampled_from(IDS),
        st.none() | st.integers(-6, 2).map(float),
        st.none() | st.sampled_from([DAY / 2, 3 * DAY]),
        st.integers(0, 1),
    )

    class History(RuleBasedStateMachine):
        @initialize(policy=st.sampled_from(POLICIES))
        def begin(self, policy: Policy) -> None:
            clock[0] = START
            self.model = Model(policy)
            admin.execute(
                "TRUNCATE indexd.namespaces, indexd.documents, indexd.chunks, indexd.relevance,"
                " indexd.forget_events, indexd.forgotten_documents, indexd.retention_policies"
            )
            admin.execute(
                """
                INSERT INTO indexd.retention_policies (
                    namespace, half_life_seconds, max_items, max_age_seconds, purge_strategy,
                    grace_seconds, policy_hash, source
                )
                VALUES ('notes', %s, %s, %s, %s, %s, '', '')
                """,
                msgspec.structs.astuple(policy)[:5],
            )

        def body(self, sent: tuple[str, float | None, float | None, int]) -> dict[str, Any]:
            doc_id, days, half_life, content = sent
            vector = [1.0, float(content)]
            body = document(doc_id, vector, half_life_seconds=half_life)
            if days is not None:
                body["ingested_at"] = (clock[0] + timedelta(days=days)).isoformat()
            return body

        def put(self, sent: tuple[str, float | None, float | None, int]) -> None:
            doc_id, days, half_life, content = sent
            given = None if days is None else clock[0] + timedelta(days=days)
            self.model.write(doc_id, given, half_life, content, clock[0])

        @rule(sent=written)
        def upsert(self, sent: tuple[str, float | None, float | None, int]) -> None:
            before = Counter(self.model.gone)
            self.put(sent)
            found = call("/index/upsert", self.body(sent))["forgotten"]
            assert found == {
                kind: self.model.gone[kind] - before[kind] for kind in ("ttl", "retention")
            }

        @rule(lines=st.lists(written, min_size=1, max_size=6))
        def bulk(self, lines: list[tuple[str, float | None, float | None, int]]) -> None:
            before = Counter(self.model.gone)
            bodies = [self.body(line) for line in lines]
            for line in lines:
                self.put(line)
            answer = loop.run_until_complete(
                client.post(
                    "/index/bulk",
                    content=b"\n".join(msgspec.json.encode(body) for body in bodies),
                    headers={"Content-Type": "application/x-ndjson"},
                )
            ).json()
            assert answer["accepted"] == len(lines)
            assert answer["forgotten"] == {
                kind: self.model.gone[kind] - before[kind] for kind in ("ttl", "retention")
            }

        @rule(doc_id=st.sampled_from(IDS))
        def delete(self, doc_id: str) -> None:
            call("/index/delete", {"doc_id": doc_id, "namespace": "notes"})
            if doc_id in self.model.documents:
                self.model.take([doc_id], "delete")

        @rule(days=st.integers(-6, 2), dry=st.booleans())
        def forget(self, days: int, dry: bool) -> None:
            limit = clock[0] + timedelta(days=days)
            doomed = sorted(d for d, v in self.model.documents.items() if v[0] < limit)
            condition = {"namespace": "notes", "older_than": limit.isoformat()}
            body: dict[str, Any] = {"filter": condition, "reason": "test"}
            plan = call("/index/forget", body | {"dry_run": True})
            assert [one["doc_id"] for one in plan["forgotten_docs"]] == doomed
            if dry:
                return
            del body["filter"]
            body |= {"plan_id": plan["plan_id"], "confirm": True}
            assert call("/index/forget", body)["forgotten_count"] == len(doomed)
            self.model.take(doomed, "manual")

        @rule()
        def search(self) -> None:
            found = call("/index/search", {"namespace": "notes", "embedding": [1, 0], "k": 100})[
                "results"
            ]
            assert sorted(hit["doc_id"] for hit in found) == sorted(self.model.documents)

        @rule(hours=st.integers(1, 60))
        def wait(self, hours: int) -> None:
            clock[0] += timedelta(hours=hours)

        @rule()
        def preview(self) -> None:
            """It names what an upsert that changes nothing would take."""
            answer = call("/index/retention/preview", {"namespace": "notes"})
            would = answer["namespaces"]["notes"]["would_forget"]
            expected = Model(self.model.policy)
            expected.documents = dict(self.model.documents)
            expected.retain("", clock[0])
            left = self.model.documents.keys() - expected.documents.keys()
            assert {one["doc_id"] for one in would} == left

        @invariant()
        def the_database_has_what_the_model_has(self) -> None:
            rows = admin.execute(
                "SELECT doc_id, ingested_at, half_life_seconds FROM indexd.documents"
            ).fetchall()
            assert {row[0]: row[1:] for row in rows} == {
                doc_id: version[:2] for doc_id, version in self.model.documents.items()
            }
            [chunks] = admin.execute("SELECT array_agg(doc_id) FROM indexd.chunks").fetchone() or ()
            assert sorted(chunks or []) == sorted(self.model.documents)
            counts = admin.execute("SELECT documents, chunks FROM indexd.namespaces").fetchall()
            assert counts in ([], [(len(rows), len(rows))])

        @invariant()
        def the_audit_accounts_for_all_that_is_gone(self) -> None:
            events: dict[str, int] = dict(
                admin.execute(
                    "SELECT kind, sum(forgotten_count)::int FROM indexd.forget_events GROUP BY kind"
                ).fetchall()
            )
            assert events == {kind: n for kind, n in self.model.gone.items() if n}
            [named] = (
                admin.execute("SELECT count(*) FROM indexd.forgotten_documents").fetchone() or ()
            )
            assert named == sum(self.model.gone.values())

    loop.run_until_complete(client.__aenter__())
    try:
        run_state_machine_as_test(
            History,
            settings=settings(
                max_examples=40,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        loop.run_until_complete(client.__aexit__(None, None, None))
        admin.close()
        loop.close()
