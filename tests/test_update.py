"""Documents are changed without their text: meta, tags, expiry and half-life."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from indexd.store.writing import update
from tests.conftest import Client, Sql, document
from tests.test_library import ask, ids, refused
from tests.test_online_migration import WRONG

LATER = "2999-01-01T00:00:00Z"
AT = "2026-01-01T00:00:00Z"


def sent(doc_id: str = "d", **rest: Any) -> dict[str, Any]:
    """A document of two chunks with meta, tags and a half-life of its own."""
    return document(
        doc_id,
        [1, 0],
        [0, 1],
        texts=["one", "two"],
        metas=[{"tags": ["chunk"], "n": 1}, {"n": 2}],
        **{"meta": {"lang": "de", "tags": ["own"], "n": 0}, "ingested_at": AT} | rest,
    )


async def put(client: Client, *bodies: dict[str, Any]) -> list[Any]:
    answers = [await client.post("/index/upsert", json=body) for body in bodies]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.json() for answer in answers]


async def read(client: Client, doc_id: str = "d", **more: Any) -> Any:
    [told] = (await ask(client, "get", doc_ids=[doc_id], **more))["documents"]
    return told


async def change(client: Client, **body: Any) -> Any:
    return await ask(client, "update", **{"doc_ids": ["d"], **body})


async def search(client: Client, **body: Any) -> list[Any]:
    asked = {"namespace": "notes", "embedding": [1, 0], **body}
    answer = await client.post("/index/search", json=asked)
    assert answer.status_code == 200, answer.text
    results: list[Any] = answer.json()["results"]
    return results


async def test_meta_is_merged_at_the_first_level_and_null_removes(client: Client, sql: Sql) -> None:
    await put(client, sent(meta={"a": {"x": 1, "y": 2}, "b": 1, "c": 1}))
    before = await read(client, vectors=True)
    told = await change(client, set={"meta": {"a": {"x": 3, "z": None}, "b": None, "d": [1]}})
    assert told == {"updated": 1, "missing": []}
    after = await read(client, vectors=True)
    assert after == before | {
        "meta": {"a": {"x": 3, "z": None}, "c": 1, "d": [1]},
        "version": 2,
    }
    assert sql(WRONG) == [(0,)]


async def test_tags_replace_the_documents_own_and_those_of_chunks_stay(
    client: Client, sql: Sql
) -> None:
    await put(client, sent())
    await change(client, set={"tags": ["new/child"]})
    told = await read(client)
    assert told["meta"] == {"lang": "de", "tags": ["new/child"], "n": 0}
    assert told["tags"] == ["chunk", "new/child"]
    assert sql(WRONG) == [(0,)]
    for tag, found in (("new", 2), ("own", 0), ("chunk", 1)):
        assert len(await search(client, filters={"tags": [tag]})) == found
    await change(client, set={"tags": None})
    assert (await read(client))["meta"] == {"lang": "de", "n": 0}
    assert await search(client, filters={"tags": ["new"]}) == []


async def test_searches_and_lists_filter_by_the_new_meta_at_once(client: Client) -> None:
    await put(client, sent(), sent("e"))
    await change(client, set={"meta": {"lang": "en", "n": 9}})
    assert ids(await ask(client, "list", filters={"meta": {"lang": "en"}})) == ["d"]
    # The keys of a chunk go before those of its document.
    assert await search(client, filters={"meta": {"n": 9}}) == []
    hits = await search(
        client, filters={"where": {"field": "meta.lang", "op": "eq", "value": "en"}}
    )
    assert [hit["doc_id"] for hit in hits] == ["d", "d"]
    assert hits[0]["document_meta"]["lang"] == "en"


async def test_the_original_sent_again_is_a_change(client: Client) -> None:
    await put(client, sent())
    await change(client, set={"meta": {"lang": "en"}})
    [told] = await put(client, sent())
    assert (told["unchanged"], told["version"]) == (False, 3)
    assert (await read(client))["meta"]["lang"] == "de"
    [told] = await put(client, sent())
    assert told["unchanged"]


async def test_a_change_and_its_way_back_make_no_plan_of_a_forget_fit_again(client: Client) -> None:
    await put(client, sent())
    wanted = {"namespace": "notes", "doc_id": "d"}
    body = {"filter": wanted, "reason": "r", "dry_run": True}
    plan = (await client.post("/index/forget", json=body)).json()["plan_id"]
    await change(client, set={"meta": {"lang": "en"}})
    await change(client, set={"meta": {"lang": "de"}})
    body = {"plan_id": plan, "reason": "r", "confirm": True}
    answer = await client.post("/index/forget", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "plan_drifted")


async def test_relevance_stays_for_the_content_is_the_same(client: Client, sql: Sql) -> None:
    await put(client, sent())
    body = {"namespace": "notes", "doc_id": "d", "useful": False}
    assert (await client.post("/index/feedback", json=body)).status_code == 200
    before = sql("SELECT * FROM indexd.relevance")
    await change(client, set={"meta": {"x": 1}, "half_life_seconds": 5})
    assert sql("SELECT * FROM indexd.relevance") == before != []


@pytest.mark.parametrize("form", [{"expires_at": AT}, {"expires_at": LATER}, {"ttl_seconds": 60.5}])
async def test_an_expiry_is_set_and_taken_away(
    client: Client, sql: Sql, form: dict[str, Any]
) -> None:
    await put(client, sent())
    digest = sql("SELECT digest FROM indexd.documents")
    await change(client, set=form)
    [(expires_at, version)] = sql("SELECT expires_at, version FROM indexd.documents")
    if "expires_at" in form:
        assert expires_at == datetime.fromisoformat(form["expires_at"])
    else:
        assert timedelta() < expires_at - datetime.now(UTC) < timedelta(seconds=61)
    assert version == 2
    # Expiry is no part of the content.
    assert sql("SELECT digest FROM indexd.documents") == digest
    if form != {"expires_at": AT}:
        await change(client, set={next(iter(form)): None})
        assert sql("SELECT expires_at FROM indexd.documents") == [(None,)]


async def test_what_expired_is_hidden_at_once_and_is_not_there_for_an_update(
    client: Client, sql: Sql
) -> None:
    await put(client, sent(), sent("e"))
    assert {hit["doc_id"] for hit in await search(client)} == {"d", "e"}
    await change(client, set={"expires_at": AT})
    assert {hit["doc_id"] for hit in await search(client)} == {"e"}
    before = sql("SELECT * FROM indexd.documents WHERE doc_id = 'd'")
    told = await change(client, doc_ids=["d", "e"], set={"expires_at": None})
    assert told == {"updated": 1, "missing": ["d"]}
    told = await ask(client, "update", filters={}, set={"meta": {"x": 1}})
    assert told == {"updated": 1, "missing": []}
    assert sql("SELECT * FROM indexd.documents WHERE doc_id = 'd'") == before


async def test_searches_decay_by_the_new_half_life_at_once(client: Client, sql: Sql) -> None:
    await put(client, sent(ingested_at="2026-01-01T00:00:00Z"))
    asked = {"at": "2026-01-01T01:00:00Z", "include_weights": True}
    assert [hit["weights"]["decay"] for hit in await search(client, **asked)] == [1, 1]
    await change(client, set={"half_life_seconds": 3600})
    decays = [hit["weights"]["decay"] for hit in await search(client, **asked)]
    assert decays == pytest.approx([0.5, 0.5])
    assert (await read(client))["half_life_seconds"] == 3600
    assert sql(WRONG) == [(0,)]
    await change(client, set={"half_life_seconds": None})
    assert [hit["weights"]["decay"] for hit in await search(client, **asked)] == [1, 1]


async def test_only_a_new_half_life_writes_rows_of_chunks(client: Client, sql: Sql) -> None:
    await put(client, sent(), sent("e", half_life_seconds=5))
    rows = "SELECT doc_id, ctid::text, xmin::text FROM indexd.chunks ORDER BY doc_id, ordinal"
    before = sql(rows)
    removed = "SELECT documents, chunks, chunks_removed FROM indexd.namespaces"
    every = {"meta": {"x": 1}, "tags": ["t"], "expires_at": LATER}
    await change(client, doc_ids=["d", "e"], set=every)
    assert sql(rows) == before
    assert sql(removed) == [(2, 4, 0)]
    await change(client, doc_ids=["d", "e"], set={"half_life_seconds": 5})
    assert sql(rows)[2:] == before[2:]
    assert sql(rows)[:2] != before[:2]
    # What an HNSW index still holds of them counts as removed.
    assert sql(removed) == [(2, 4, 2)]


async def test_documents_are_chosen_by_filters(client: Client) -> None:
    await put(client, *(sent(f"d{n}", meta={"n": n, "third": n % 3 == 0}) for n in range(6)))
    where = {"field": "meta.third", "op": "eq", "value": True}
    told = await ask(client, "update", filters={"where": where}, set={"meta": {"x": 1}})
    assert told == {"updated": 2, "missing": []}
    told = await ask(client, "update", filter={"doc_id": ["d1", "no"]}, set={"meta": {"x": 1}})
    assert told == {"updated": 1, "missing": []}
    assert ids(await ask(client, "list", filters={"meta": {"x": 1}})) == ["d0", "d1", "d3"]


async def test_missing_ids_are_listed_in_their_order_and_twice_counts_once(client: Client) -> None:
    await put(client, sent())
    told = await change(client, doc_ids=["no", "d", "never", "d", "no"], set={"tags": []})
    assert told == {"updated": 1, "missing": ["no", "never"]}
    assert (await read(client))["version"] == 2
    told = await change(client, namespace="elsewhere", set={"tags": []})
    assert told == {"updated": 0, "missing": ["d"]}


@pytest.mark.parametrize("by", [{"doc_ids": ["d", "no"]}, {"filters": {"tags": ["own"]}}])
async def test_a_dry_run_answers_the_same_and_changes_nothing(
    client: Client, sql: Sql, by: dict[str, Any]
) -> None:
    await put(client, sent())
    every = "SELECT * FROM indexd.documents NATURAL JOIN indexd.chunk_fields"
    before = sql(every)
    body = {**by, "set": {"meta": {"x": 1}, "half_life_seconds": 3, "ttl_seconds": 9}}
    told = await ask(client, "update", **body, dry_run=True)
    assert sql(every) == before
    assert told == await ask(client, "update", **body)
    assert told["updated"] == 1


WRONG_BODIES: list[dict[str, Any]] = [
    {"set": {}},
    {"set": {"meta": {}}},
    {"set": None},
    {"set": {"expires_at": LATER, "ttl_seconds": 5}},
    {"set": {"expires_at": None, "ttl_seconds": None}},
    {"set": {"tags": ["a"], "meta": {"tags": ["a"]}}},
    {"set": {"tags": "a"}},
    {"set": {"tags": [1]}},
    {"set": {"tags": ["x" * 513]}},
    {"set": {"tags": ["x"] * 257}},
    {"set": {"tags": ["a/" * 40]}},
    {"set": {"meta": {"tags": ["x" * 513]}}},
    {"set": {"meta": {"x": "\0"}}},
    {"set": {"meta": {"x": "y" * 2**20}}},
    {"set": {"meta": {"x": [1] * 10_000}}},
    {"set": {"ttl_seconds": 0}},
    {"set": {"ttl_seconds": -1}},
    {"set": {"ttl_seconds": 1e300}},
    {"set": {"expires_at": "2026-01-01"}},
    {"set": {"expires_at": "9999-12-31T23:00:00-05:00"}},
    {"set": {"half_life_seconds": 0}},
    {"set": {"half_life_seconds": -1}},
    {"set": {"text": "new"}},
    {"set": {"tags": []}, "filters": {}},
    {"set": {"tags": []}, "doc_ids": None},
    {"set": {"tags": []}, "doc_ids": None, "filters": {}, "filter": {}},
    {"set": {"tags": []}, "doc_ids": []},
    {"set": {"tags": []}, "doc_ids": [""]},
    {"set": {"tags": []}, "doc_ids": ["d"] * 1_001},
    {"set": {"tags": []}, "doc_ids": None, "filters": {"tags": []}},
    {"set": {"tags": []}, "doc_ids": None, "filters": {}, "if_version": 1},
    {"set": {"tags": []}, "doc_ids": ["d", "e"], "if_version": 1},
    {"set": {"tags": []}, "if_version": 0},
    {"set": {"tags": []}, "if_version": 2**63},
    {"set": {"tags": []}, "ifversion": 1},
]


@pytest.mark.parametrize("wrong", WRONG_BODIES, ids=str)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_what_is_wrong_is_refused_and_changes_nothing(
    client: Client, sql: Sql, wrong: dict[str, Any], dry_run: bool
) -> None:
    await put(client, sent())
    before = sql("SELECT * FROM indexd.documents")
    code = await refused(client, "update", **{"doc_ids": ["d"], "dry_run": dry_run, **wrong})
    assert code in ("invalid_field", "unknown_field")
    assert sql("SELECT * FROM indexd.documents") == before


async def test_an_infinite_number_is_refused(client: Client) -> None:
    await put(client, sent())
    for field in ("ttl_seconds", "half_life_seconds"):
        body = f'{{"namespace": "notes", "doc_ids": ["d"], "set": {{"{field}": 1e999}}}}'
        answer = await client.post(
            "/index/documents/update", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    ("chunks", "meta", "more"),
    [
        (1, {"x": "a" * 600_000}, {"y": "b" * 600_000}),
        (1, {"x": [1] * 6_000}, {"y": [1] * 6_000}),
        (10_000, {}, {"y": "b" * 6_800}),
        (10_000, {}, {"tags": [f"{n}/b" for n in range(26)]}),
    ],
    ids=["bytes", "values", "merged bytes", "segments"],
)
async def test_the_merged_meta_has_the_limits_of_an_upsert(
    client: Client, sql: Sql, chunks: int, meta: dict[str, Any], more: dict[str, Any]
) -> None:
    vectors = [{"embedding": [1, n]} for n in range(chunks)]
    await put(client, {"doc_id": "d", "namespace": "notes", "meta": meta, "chunks": vectors})
    before = sql("SELECT * FROM indexd.documents")
    for dry_run in (True, False):
        code = await refused(client, "update", doc_ids=["d"], set={"meta": more}, dry_run=dry_run)
        assert code == "invalid_field"
    assert sql("SELECT * FROM indexd.documents") == before


async def test_if_version_changes_only_that_version(client: Client) -> None:
    await put(client, sent())
    for expected, status in ((2, 409), (1, 200), (1, 409), (2, 200)):
        body = {"namespace": "notes", "doc_ids": ["d"], "set": {"tags": []}, "if_version": expected}
        dry = await client.post("/index/documents/update", json=body | {"dry_run": True})
        answer = await client.post("/index/documents/update", json=body)
        assert (answer.status_code, answer.json()) == (dry.status_code, dry.json())
        assert answer.status_code == status
    body["if_version"] = 7
    told = (await client.post("/index/documents/update", json=body)).json()
    assert (told["code"], told["details"]) == ("conflict", {"version": 3})
    assert told["error"] == "document 'd' is stored in version 3, expected version 7"
    body["doc_ids"] = ["no"]
    answer = await client.post("/index/documents/update", json=body)
    assert (answer.status_code, answer.json()["details"]) == (409, {"version": 0})


async def test_batches_are_one_transaction(
    client: Client, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "BATCH", 2)
    await put(client, *(sent(f"d{n}") for n in range(5)))
    await put(client, sent("z", meta={"x": "a" * 600_000}))
    big = {"meta": {"y": "b" * 600_000}}
    assert await refused(client, "update", filters={}, set=big) == "invalid_field"
    assert sql("SELECT DISTINCT version FROM indexd.documents") == [(1,)]
    told = await ask(client, "update", filters={}, set={"meta": {"y": 1}, "half_life_seconds": 9})
    assert told["updated"] == 6
    assert sql("SELECT DISTINCT version, half_life_seconds FROM indexd.documents") == [(2, 9.0)]
    assert sql("SELECT DISTINCT half_life_seconds FROM indexd.chunks") == [(9.0,)]
    assert sql(WRONG) == [(0,)]


async def test_updates_with_if_version_and_deletions_lose_no_update(
    client: Client, sql: Sql
) -> None:
    """Eight writers append to a list that they read; each tenth round deletes the document."""
    wrote = lost = 0
    rounds = iter(range(200))

    async def write(name: str) -> None:
        nonlocal wrote, lost
        for number in rounds:
            found = (await ask(client, "get", doc_ids=["d"]))["documents"]
            if number % 10 == 9:
                await ask(client, "delete", doc_ids=["d"])
                continue
            mark = f"{name}{number}"
            if not found:
                body = sent(meta={"marks": [mark]}, if_version=0)
                answer = await client.post("/index/upsert", json=body)
            else:
                marks = [*found[0]["meta"]["marks"], mark]
                body = {
                    "namespace": "notes",
                    "doc_ids": ["d"],
                    "set": {"meta": {"marks": marks}},
                    "if_version": found[0]["version"],
                }
                answer = await client.post("/index/documents/update", json=body)
            assert answer.status_code in (200, 409), answer.text
            wrote += answer.status_code == 200
            await asyncio.sleep(random.random() * 1e-3)

    async def watch(done: asyncio.Event) -> None:
        """Each version of one life has one mark more than the version before."""
        nonlocal lost
        lives: dict[str, dict[int, int]] = {}
        while not done.is_set():
            for one in (await ask(client, "get", doc_ids=["d"]))["documents"]:
                life = lives.setdefault(one["created_at"], {})
                length = len(one["meta"]["marks"])
                lost += life.setdefault(one["version"] - length, length) < 1 or len(life) > 1
            await asyncio.sleep(0)

    done = asyncio.Event()
    watching = asyncio.create_task(watch(done))
    await asyncio.gather(*(write(name) for name in "abcdefgh"))
    done.set()
    await watching
    assert lost == 0
    assert wrote > 10
    versions = sql("SELECT version FROM indexd.forgotten_documents")
    assert len(set(versions)) == len(versions) > 5
    # Each accepted write is one version: none overwrote another, and none was numbered twice.
    left = sql("SELECT version FROM indexd.documents")
    assert max(version for (version,) in versions + left) == wrote
    assert sql(WRONG) == [(0,)]


async def test_updates_upserts_and_deletions_at_once_end_without_a_deadlock(
    client: Client, sql: Sql
) -> None:
    doc_ids = [f"d{n}" for n in range(12)]

    async def write(seed: int) -> None:
        rng = random.Random(seed)
        for turn in range(8):
            some = rng.sample(doc_ids, 6)
            if seed % 4 == 0:
                await put(client, *(sent(one, meta={"turn": turn}) for one in some[:3]))
            elif seed % 4 == 1:
                await ask(client, "delete", doc_ids=some[:2])
            elif seed % 4 == 2:
                await change(client, doc_ids=some, set={"half_life_seconds": 1 + turn + seed})
            else:
                await ask(client, "update", filters={"tags": ["own"]}, set={"meta": {"t": turn}})

    await asyncio.gather(*(write(seed) for seed in range(8)))
    assert sql(WRONG) == [(0,)]
    assert sql(
        "SELECT count(*) FROM indexd.chunks AS chunk JOIN indexd.documents AS document "
        "USING (namespace, doc_id) "
        "WHERE chunk.half_life_seconds IS DISTINCT FROM document.half_life_seconds"
    ) == [(0,)]
    [counted] = sql("SELECT documents, chunks FROM indexd.namespaces")
    assert [counted] == sql("SELECT count(DISTINCT doc_id), count(*) FROM indexd.chunks")


async def test_a_deletion_says_in_a_dry_run_what_it_would_do(client: Client, sql: Sql) -> None:
    await put(client, sent())
    for doc_id, stored in (("d", 1), ("no", 0)):
        body = {"namespace": "notes", "doc_id": doc_id, "dry_run": True}
        answer = await client.post("/index/delete", json=body)
        assert answer.json() == {"status": "accepted", "deleted": stored}
    assert sql("SELECT count(*) FROM indexd.documents") == [(1,)]
    assert sql("SELECT count(*) FROM indexd.forget_events") == [(0,)]
    answer = await client.post("/index/delete", json=body | {"doc_id": "d", "dry_run": False})
    assert answer.json() == {"status": "accepted", "deleted": 1}


FILL = (
    """
    INSERT INTO indexd.namespaces (namespace, dimension, documents, chunks, created_at)
    VALUES ('notes', 8, 12000, 12000, now())
    """,
    """
    INSERT INTO indexd.documents (namespace, doc_id, ingested_at, chunk_count, digest, meta)
    SELECT 'notes', 'd' || n, '2026-01-01', 1, 'x',
           jsonb_build_object('lang', 'de', 'tags', ARRAY['own/' || n % 10])
      FROM generate_series(1, 12000) AS n
    """,
    """
    INSERT INTO indexd.chunks (
        namespace, doc_id, ordinal, ingested_at, embedding, chunk_id, tags, meta, text, generation
    )
    SELECT 'notes', 'd' || n, 0, '2026-01-01',
           l2_normalize(ARRAY[sin(n), cos(n), sin(2 * n), cos(3 * n), sin(5 * n), 1, 0, 0]::vector),
           'c', ARRAY['chunk'], jsonb_build_object('n', n), 'a text', 0
      FROM generate_series(1, 12000) AS n
    """,
    """
    INSERT INTO indexd.chunk_fields (namespace, doc_id, ordinal, ingested_at, tags, meta)
    SELECT namespace, doc_id, 0, chunk.ingested_at,
           indexd.merged_tags(chunk.tags, indexd.tags_of(document.meta)),
           document.meta || chunk.meta
      FROM indexd.chunks AS chunk
      JOIN indexd.documents AS document USING (namespace, doc_id)
    """,
    """
    CREATE INDEX hnsw_of_test ON indexd.chunks
     USING hnsw ((embedding::halfvec(8)) halfvec_ip_ops) WITH (m = 8, ef_construction = 32)
     WHERE namespace = 'notes' AND vector_dims(embedding) = 8
    """,
    "ANALYZE indexd.documents",
    "ANALYZE indexd.chunks",
    "ANALYZE indexd.chunk_fields",
)


@pytest.mark.slow
async def test_many_documents_change_and_the_graph_is_not_touched(
    own_client: Client, own_sql: Sql
) -> None:
    for statement in FILL:
        own_sql(statement)
    graph = "SELECT pg_relation_size('indexd.hnsw_of_test'), count(*), min(xmin::text) "
    before = own_sql(graph + "FROM indexd.chunks")
    where = {"field": "meta.lang", "op": "eq", "value": "de"}
    every = {"meta": {"lang": "en", "x": 1}, "tags": ["new"], "expires_at": LATER}
    told = await ask(own_client, "update", filters={"where": where}, set=every)
    assert told == {"updated": 12_000, "missing": []}
    assert own_sql(graph + "FROM indexd.chunks") == before
    assert own_sql(WRONG) == [(0,)]
