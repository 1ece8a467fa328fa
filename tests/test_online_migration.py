"""Chunks get their fields while the program of the release before reads and writes."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from indexd.db import migrate
from indexd.errors import ConfigurationError
from tests.conftest import Sql

BEFORE = "0019"
"""The revision whose program knows no fields of chunks."""

OF_CHUNKS = """
    SELECT chunk.namespace, chunk.doc_id, chunk.ordinal, chunk.ingested_at,
           chunk.half_life_seconds, chunk.source_ref_origin, chunk.source_path,
           indexd.merged_tags(chunk.tags, indexd.tags_of(document.meta)),
           document.meta || chunk.meta
      FROM indexd.chunks AS chunk
      JOIN indexd.documents AS document USING (namespace, doc_id)
"""

OF_FIELDS = """
    SELECT fields.namespace, fields.doc_id, fields.ordinal, fields.ingested_at,
           fields.half_life_seconds, fields.source_ref_origin, fields.source_path,
           fields.tags, fields.meta
      FROM indexd.chunk_fields AS fields
      JOIN indexd.documents AS document USING (namespace, doc_id)
"""

WRONG = f"""
    SELECT count(*)
      FROM (
            ({OF_CHUNKS} EXCEPT ALL {OF_FIELDS})
             UNION ALL
            ({OF_FIELDS} EXCEPT ALL {OF_CHUNKS})
           ) AS wrong
"""
"""SQL: how many chunks of documents lack their fields, or fields their chunk, or differ."""


def fill_with(connection: psycopg.Connection[Any], documents: int, *, chunks: int) -> None:
    """What the program of the release before wrote: a namespace of small documents."""
    connection.execute(
        "INSERT INTO indexd.namespaces (namespace, dimension, documents, chunks, created_at) "
        "VALUES ('notes', 2, %s, %s, now())",
        [documents, documents * chunks],
    )
    connection.execute(
        """
        INSERT INTO indexd.documents (
            namespace, doc_id, ingested_at, chunk_count, digest, meta
        )
        SELECT 'notes', 'd' || n, '2026-01-01', %s, '', jsonb_build_object('tags', ARRAY['t' || n])
          FROM generate_series(1, %s) AS n
        """,
        [chunks, documents],
    )
    for n in range(chunks):
        connection.execute(INSERT_CHUNKS, [n, ["own"], documents])


INSERT_CHUNKS = """
    INSERT INTO indexd.chunks (
        namespace, doc_id, ordinal, ingested_at, embedding, chunk_id, tags, meta, text
    )
    SELECT 'notes', 'd' || n, %s, '2026-01-01', '[1,0]', 'c', %s, '{"lang": "de"}', 't'
      FROM generate_series(1, %s) AS n
"""


@pytest.fixture
def old(url: str, clone: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A connection to a database of the release before."""
    clone.autocommit = True
    migrate.downgrade(url, BEFORE)
    return clone


def test_the_fields_of_a_chunk_are_its_own_over_those_of_its_document(
    url: str, old: psycopg.Connection[Any], own_sql: Sql
) -> None:
    old.execute("INSERT INTO indexd.namespaces VALUES ('notes', 2, 1, 2, now())")
    old.execute(
        "INSERT INTO indexd.documents (namespace, doc_id, ingested_at, chunk_count, digest, meta) "
        "VALUES ('notes', 'a', '2026-01-01', 2, '', %s)",
        ['{"tags": ["b", 1, "a"], "lang": "de", "deep": {"x": 1}}'],
    )
    for ordinal, tags, meta in ((0, ["a", "c"], '{"deep": {"y": 2}}'), (1, [], "{}")):
        old.execute(
            "INSERT INTO indexd.chunks (namespace, doc_id, ordinal, ingested_at, embedding, "
            "chunk_id, tags, meta, text, source_path) "
            "VALUES ('notes', 'a', %s, '2026-01-01', '[1,0]', 'c', %s, %s, 't', 'p')",
            [ordinal, tags, meta],
        )
    migrate.upgrade(url)
    document = {"tags": ["b", 1, "a"], "lang": "de", "deep": {"x": 1}}
    assert own_sql(
        "SELECT ordinal, source_path, tags, meta FROM indexd.chunk_fields ORDER BY 1"
    ) == [
        (0, "p", ["a", "c", "b"], document | {"deep": {"y": 2}}),
        (1, "p", ["b", "a"], document),
    ]
    assert own_sql(
        "SELECT filter_keys @> indexd.filter_keys_of('notes', 'tag', ARRAY['b', 'a']) "
        "FROM indexd.chunk_fields"
    ) == [(True,), (True,)]


@pytest.mark.parametrize(
    ("meta", "tags"),
    [
        ("{}", []),
        ('{"tags": null}', []),
        ('{"tags": "alone"}', []),
        ('{"tags": {"a": 1}}', []),
        ('{"tags": []}', []),
        ('{"tags": ["b", "a", "b"]}', ["b", "a", "b"]),
        ('{"tags": ["a", 1, null, ["b"], {"c": 1}, ""]}', ["a", ""]),
        ("[]", []),
        ("1", []),
    ],
)
def test_tags_are_the_texts_of_an_array(sql: Sql, meta: str, tags: list[str]) -> None:
    assert sql("SELECT indexd.tags_of(%s::jsonb)", meta) == [(tags,)]


@pytest.mark.parametrize(
    ("own", "others", "merged"),
    [
        ([], [], []),
        (["a"], [], ["a"]),
        ([], ["a"], ["a"]),
        (["a"], ["a"], ["a"]),
        (["b", "a"], ["c", "a"], ["b", "a", "c"]),
        (["a", "a"], [], ["a"]),
    ],
)
def test_merged_tags_are_each_once_in_their_order(
    sql: Sql, own: list[str], others: list[str], merged: list[str]
) -> None:
    assert sql("SELECT indexd.merged_tags(%s::text[], %s::text[])", own, others) == [(merged,)]


@pytest.mark.slow
def test_a_fill_that_is_killed_goes_on_where_it_was(
    url: str, old: psycopg.Connection[Any], own_sql: Sql
) -> None:
    fill_with(old, 15_000, chunks=2)
    upgrading = [sys.executable, "-m", "indexd", "db", "upgrade"]
    environ = {**os.environ, "INDEXD_DATABASE_URL": url}
    with subprocess.Popen(upgrading, env=environ, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "fields of chunks: 20,000 done\n"
        program.kill()
    [(filled,)] = own_sql("SELECT count(*) FROM indexd.chunk_fields")
    assert 20_000 <= filled < 30_000
    migrate.upgrade(url)
    assert own_sql(WRONG) == [(0,)]
    assert own_sql("SELECT count(*) FROM indexd.chunk_fields") == [(30_000,)]
    migrate.check(url)


WRITERS = 4


class OldWriter(threading.Thread):
    """Replaces, deletes and inserts documents as the program of the release before does.

    Each has documents of its own.
    """

    def __init__(self, url: str, place: int) -> None:
        super().__init__()
        self.url, self.place = url, place
        self.random = random.Random(place)
        self.stopped = threading.Event()
        self.slowest, self.done = 0.0, 0
        self.failed: Exception | None = None

    def run(self) -> None:
        try:
            with psycopg.connect(self.url) as connection:
                while not self.stopped.is_set():
                    self.write(connection)
        except Exception as error:
            self.failed = error

    def write(self, connection: psycopg.Connection[Any]) -> None:
        # From the whole range of keys, so that it meets the batch that is being filled.
        number = WRITERS * self.random.randrange(6_000 // WRITERS) + self.place + 1
        doc_id, chunks = f"d{number}", self.random.randint(0, 5)
        key, began = {"doc_id": doc_id}, time.perf_counter()
        try:
            connection.execute(
                "SELECT FROM indexd.documents WHERE namespace = 'notes' "
                "AND doc_id = %(doc_id)s FOR UPDATE",
                key,
            )
            connection.execute(
                "DELETE FROM indexd.chunks WHERE namespace = 'notes' AND doc_id = %(doc_id)s", key
            )
            if chunks == 0:
                connection.execute(
                    "DELETE FROM indexd.documents WHERE namespace = 'notes' "
                    "AND doc_id = %(doc_id)s",
                    key,
                )
            else:
                self.replace(connection, doc_id, chunks)
            connection.commit()
        except psycopg.errors.DeadlockDetected:
            connection.rollback()
            return
        self.done += 1
        self.slowest = max(self.slowest, time.perf_counter() - began)

    def replace(self, connection: psycopg.Connection[Any], doc_id: str, chunks: int) -> None:
        tag = f"t{self.random.randint(1, 99)}"
        connection.execute(
            "INSERT INTO indexd.documents "
            "(namespace, doc_id, ingested_at, chunk_count, digest, meta) "
            "VALUES ('notes', %s, '2026-01-02', %s, '', jsonb_build_object('tags', ARRAY[%s])) "
            "ON CONFLICT (namespace, doc_id) DO UPDATE "
            "SET chunk_count = excluded.chunk_count, meta = excluded.meta, "
            "ingested_at = excluded.ingested_at",
            [doc_id, chunks, tag],
        )
        connection.cursor().executemany(
            "INSERT INTO indexd.chunks (namespace, doc_id, ordinal, ingested_at, embedding, "
            "chunk_id, tags, meta, text) "
            "VALUES ('notes', %s, %s, '2026-01-02', '[1,0]', 'c', %s, '{}', 't')",
            [(doc_id, n, [tag, "own"]) for n in range(chunks)],
        )


@contextmanager
def writing(url: str) -> Iterator[list[OldWriter]]:
    started = [OldWriter(url, place) for place in range(WRITERS)]
    for one in started:
        one.start()
    try:
        yield started
    finally:
        for one in started:
            one.stopped.set()
        for one in started:
            one.join()


@pytest.mark.slow
def test_what_is_written_meanwhile_has_its_fields_and_no_write_waits_for_the_whole(
    url: str, old: psycopg.Connection[Any], own_sql: Sql
) -> None:
    fill_with(old, 6_000, chunks=5)
    with writing(url) as writers:
        began = time.perf_counter()
        migrate.upgrade(url)
        took = time.perf_counter() - began
    assert [one.failed for one in writers] == [None] * len(writers)
    assert all(one.done > 20 for one in writers)
    assert own_sql(WRONG) == [(0,)]
    assert max(one.slowest for one in writers) < took / 2
    migrate.check(url)


def test_an_old_program_writes_fields_and_leaves_none_past_the_last_chunk(
    url: str, old: psycopg.Connection[Any], own_sql: Sql
) -> None:
    migrate.upgrade(url)
    writer = OldWriter(url, 0)
    for chunks in (5, 2, 1, 4):
        old.execute("DELETE FROM indexd.chunks")
        writer.replace(old, "d1", chunks)
        assert own_sql("SELECT ordinal FROM indexd.chunk_fields ORDER BY 1") == [
            (n,) for n in range(chunks)
        ]
        assert own_sql(WRONG) == [(0,)]


def test_a_reader_who_holds_the_tables_for_a_while_is_waited_for(
    url: str, old: psycopg.Connection[Any]
) -> None:
    with psycopg.connect(url) as reader:
        reader.execute("SELECT FROM indexd.chunks, indexd.documents, indexd.namespaces")
        leaving = threading.Timer(2, reader.rollback)
        leaving.start()
        migrate.upgrade(url, "0020")
        leaving.join()
    assert old.execute("SHOW lock_timeout").fetchone() is not None
    migrate.upgrade(url)
    migrate.check(url)


def test_the_way_back_is_refused_while_there_are_chunks_without_a_vector(
    url: str, clone: psycopg.Connection[Any]
) -> None:
    clone.autocommit = True
    fill_with(clone, 1, chunks=1)
    clone.execute("UPDATE indexd.chunks SET embedding = NULL")
    with pytest.raises(ConfigurationError, match="chunks without a vector are stored"):
        migrate.downgrade(url, BEFORE)
    clone.execute("UPDATE indexd.chunks SET embedding = '[1,0]'")
    migrate.downgrade(url, BEFORE)
    migrate.upgrade(url)
    migrate.check(url)
