"""The true k best under decay, at the speed of an HNSW index: probe and sweep.

    probe   the `ef` most similar chunks (HNSW) and the newest ones (btree), scored exactly
    bound   an unseen chunk has a cosine of at most U, that of a far probed one plus epsilon; with
            kth the k-th best score so far, an unseen chunk older than
            at - half_life * log2(U / kth) can't reach it
    sweep   the chunks younger than that, newest first, in slices: each slice raises kth, which
            brings the cutoff nearer
    deepen  ask the index for more instead, where that is foretold to be cheaper: it lowers U
    exact   score everything, where there is no bound or nothing cheaper

docs/decay.md has the proof. What rests on the index's recall is chunks it missed that are older
than the cutoff; everything else is exact. All statements run in the caller's snapshot.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np

from indexd.db import Connection
from indexd.store import ages
from indexd.store.ages import Ages
from indexd.store.filters import Filters, content, in_time, matches, may_match, parameters
from indexd.store.hits import top
from indexd.store.namespaces import Facts
from indexd.vectors import Embedding

NO_HALF_LIFE = 32767
"""chunks.half_life_class of those without a half-life of their own."""


class Tuning(msgspec.Struct, frozen=True):
    """Sizes of the arms, and what a row costs in microseconds, as measured (docs/decay.md).

    `trusted` is the share of the similar arm, nearest first, beyond which chunks may be missing.
    Under load (indexd.budget) `effort` is the share of the candidates that are looked at, and after
    `scored_limit` rows a search that has k results leaves it at those.
    """

    ef: int | None = None
    ef_max: int = 1_000
    max_scan_tuples: int = 20_000
    newest: int = 200
    newest_read: int = 1_000
    slice_rows: int = 4_000
    trusted: float = 0.5
    index_row: float = 13.0
    swept_row: float = 0.5
    exact_row: float = 1.2
    statement: float = 300.0
    effort: float = 1.0
    scored_limit: float = math.inf

    def first_ef(self, chunks: int) -> int:
        """The recall of one ef falls as the index grows; the square root keeps it."""
        full = self.ef or min(max(150 * math.sqrt(chunks / 40_000), 100), self.ef_max)
        return max(int(full * self.effort), 1)

    @property
    def reduced(self) -> list[str]:
        """What an answer over the index says of itself."""
        return ["index"] if self.effort < 1 else []


class Key(msgspec.Struct, frozen=True, order=True):
    """A chunk that was scored; the order is that of an answer."""

    minus_score: float
    doc_id: str
    chunk_id: str
    ordinal: int


class Best:
    """The k best so far, each chunk once, and how many rows were scored to find them.

    With `per_document` each document has one place, that of its best chunk.
    """

    def __init__(self, k: int, *, per_document: bool = False) -> None:
        self.k = k
        self.per_document = per_document
        self.scored = 0
        self.cut = False
        self._keys: dict[tuple[str, int], Key] = {}

    def take(self, rows: Sequence[tuple[str, int, str, float]]) -> None:
        """Rows are doc_id, ordinal, chunk_id, score."""
        for doc_id, ordinal, chunk_id, score in rows:
            key = Key(-score, doc_id, chunk_id, ordinal)
            place = (doc_id, 0 if self.per_document else ordinal)
            self._keys[place] = min(key, self._keys.get(place, key))
        if len(self._keys) > self.k:
            self._keys = {
                (key.doc_id, 0 if self.per_document else key.ordinal): key for key in self.keys()
            }

    def keys(self) -> list[Key]:
        return sorted(self._keys.values())[: self.k]

    @property
    def kth(self) -> float:
        """The k-th best score; minus infinity while there are fewer."""
        keys = self.keys()
        return -keys[-1].minus_score if len(keys) == self.k else -math.inf


class Probe(msgspec.Struct, frozen=True):
    """What the arms say besides rows; cosines of the similar arm are those of halfvec."""

    similar: int
    bound: float | None
    halfway: float | None
    newest: int
    edge: datetime | None
    classes: list[int]


def epsilon(vector: Embedding) -> float:
    """At most so far is a cosine from that of the index, for any unit vector beside this one.

    |qv - q'v'| <= |q - q'| |v'| + |q| |v - v'|, where ' is rounding to halfvec: to nearest, so
    |v - v'| <= 2^-11 |v| + 2^-25 sqrt(D) (the second term is that of subnormals), and |q - q'| is
    known. Both products are summed in float32, with an error of at most 1.01 D 2^-24 each.
    """
    rounded_off = vector.astype(np.float64) - vector.astype(np.float16)
    query_error = math.sqrt(rounded_off @ rounded_off)
    chunk_error = 2.0**-11 * (1 + 1e-5) + 2.0**-25 * math.sqrt(vector.size)
    summation = 2 * 1.01 * vector.size * 2.0**-24
    return (query_error * (1 + chunk_error) + chunk_error) * (1 + 1e-5) + summation + 1e-7


def half_life_bound(half_life_class: int, policy: float | None) -> float:
    """No chunk of the class has a longer half-life; infinity where one may not decay at all."""
    if half_life_class == NO_HALF_LIFE:
        return math.inf if policy is None else policy
    return math.ldexp(1 + 1e-9, half_life_class) if half_life_class < 1024 else math.inf


def cutoff(at: float, half_life: float, upper: float, kth: float) -> float:
    """Unseen chunks older than this (seconds since 1970) can't reach kth; 0 < kth <= upper.

    A difference of logarithms, widened by more than they are rounded.
    """
    if half_life == math.inf:
        return -math.inf
    return at - (math.log2(upper) - math.log2(kth)) * half_life * (1 + 1e-6) - 1e-3


class Range(msgspec.Struct, frozen=True):
    """Chunks of one half-life class, both ends included, in seconds since 1970."""

    half_life_class: int
    since: float
    until: float


async def probe_and_sweep(
    connection: Connection,
    space: Facts,
    vector: Embedding,
    *,
    k: int,
    filters: Filters,
    at: datetime,
    tuning: Tuning,
    per_document: bool = False,
) -> Best | float:
    """The k best of an indexed namespace: their keys, and how many rows were scored.

    Or how many chunks match, about: so few that it is cheaper to scan them, which is not done.
    """
    values = parameters(filters) | {
        "namespace": space.namespace,
        "vector": vector,
        "half_life": space.half_life_seconds,
        "k": k,
        "at": at,
        "trusted": tuning.trusted,
    }
    best = Best(k, per_document=per_document)
    filtered = filters != Filters()
    matching = float(space.chunks)
    # Fewer candidates than 2k would hardly ever prove the k-th.
    ef = min(max(tuning.first_ef(space.chunks), 2 * k), tuning.ef_max)
    wanted = ef
    if filtered:
        matching = min(await _estimate(connection, space, filters, values), matching)
        wanted = _wanted(k)
    # With a filter, a similar chunk that matches costs as many of the index as do not.
    similar_row = tuning.index_row * space.chunks / max(matching, 1)
    if filtered and _are_few(matching, space, k, tuning):
        return matching

    spread = await ages.of(connection, space.namespace)
    await connection.execute(";".join(index_search(ef, filtered=filtered, tuning=tuning)))
    newest = tuning.newest_read if filtered else tuning.newest
    probe = await _probe(connection, best, space.dimension, filters, values, wanted, newest)
    if probe.newest < newest or probe.edge is None:
        return best  # the newest arm has read everything there is
    slack = epsilon(vector)
    bound, wide = probe.bound, tuning.slice_rows
    swept = dict.fromkeys(probe.classes, probe.edge.timestamp())
    while True:
        if bound is None or best.kth <= 0:
            return await _exact(connection, best, filters, values, matching)
        upper = max(bound + slack, 0.0)
        if best.kth > upper:
            return best
        open_ranges = _open(swept, space, at, upper, best.kth)
        if not open_ranges:
            return best
        if best.scored >= tuning.scored_limit:
            best.cut = True
            return best
        sweeping = _chunks(open_ranges, spread) * tuning.swept_row + tuning.statement

        deeper, ef_next, ef_deeper = math.inf, wanted, wanted
        step = max((probe.halfway or 0) - (probe.bound or 0), 1e-4)
        while probe.similar >= 0.9 * wanted and ef_next < tuning.ef_max:
            ef_next = min(int(ef_next * 1.5), tuning.ef_max)
            below = upper - step * math.log2(ef_next / wanted)
            left = _open(swept, space, at, below, best.kth) if below >= best.kth else []
            cost = (
                ef_next * similar_row
                + _chunks(left, spread) * tuning.swept_row
                + 2 * tuning.statement
            )
            if cost < min(deeper, 0.9 * sweeping):
                deeper, ef_deeper = cost, ef_next

        if min(sweeping, deeper) > matching * tuning.exact_row:
            if matching > tuning.scored_limit:
                best.cut = True
                return best
            return await _exact(connection, best, filters, values, matching)
        if deeper < math.inf:
            wanted = ef_deeper
            await connection.execute(
                ";".join(index_search(wanted, filtered=filtered, tuning=tuning))
            )
            probe = await _probe(connection, best, space.dimension, filters, values, wanted, 0)
            bound = min(bound, probe.bound) if probe.bound is not None else bound
            continue
        slices = [_newest_part(one, spread, wide) for one in open_ranges]
        best.scored += int(_chunks(slices, spread))
        await _sweep(connection, best, filters, values, slices)
        swept |= {one.half_life_class: one.since for one in slices}
        wide *= 2


def _open(
    swept: dict[int, float], space: Facts, at: datetime, upper: float, kth: float
) -> list[Range]:
    """Where a chunk that reaches kth may still be, by class."""
    return [
        Range(one, since, until)
        for one, until in swept.items()
        if (
            since := cutoff(
                at.timestamp(), half_life_bound(one, space.half_life_seconds), upper, kth
            )
        )
        < until
    ]


def _chunks(ranges: Sequence[Range], spread: Ages) -> float:
    """About how many chunks lie in the ranges."""
    return sum(
        max(one.older(r.until) - one.older(r.since), 0.0)
        for r in ranges
        if (one := spread.get(r.half_life_class))
    )


def _newest_part(one: Range, spread: Ages, chunks: int) -> Range:
    """The newest so many chunks of a range; the whole where little more would be left."""
    if _chunks([one], spread) <= 1.3 * chunks:
        return one
    since = spread[one.half_life_class].before(one.until, chunks)
    return Range(one.half_life_class, max(since, one.since), one.until)


def index_search(ef: int, *, filtered: bool, tuning: Tuning) -> list[str]:
    """What is set for a search of the HNSW index, in its transaction.

    Without the iterative scan a selective filter starves the similar arm. Relaxed order loses
    nothing: strict order drops the rows that turn up late.
    """
    settings = [f"SET LOCAL hnsw.ef_search = {min(ef, tuning.ef_max)}"]
    if filtered:
        settings += [
            "SET LOCAL hnsw.iterative_scan = relaxed_order",
            f"SET LOCAL hnsw.max_scan_tuples = {tuning.max_scan_tuples}",
        ]
    return settings


def _wanted(k: int) -> int:
    """Rows of the similar arm under a filter."""
    return max(64, 2 * k)


def _are_few(matching: float, space: Facts, k: int, tuning: Tuning) -> bool:
    """So few match that scanning them costs less than the similar arm."""
    similar_arm = _wanted(k) * tuning.index_row * space.chunks / max(matching, 1)
    return matching * tuning.exact_row <= similar_arm


def few(space: Facts, filters: Filters, k: int, tuning: Tuning) -> float | None:
    """How many match, about, if they are few; None also where nobody estimated it lately."""
    chunks, known = _estimates.get(_filter_key(space, filters), (0, 0.0))
    if abs(space.chunks - chunks) > 0.1 * chunks or not _are_few(known, space, k, tuning):
        return None
    return known


def _filter_key(space: Facts, filters: Filters) -> tuple[str, bytes]:
    return space.namespace, msgspec.json.encode(filters, order="sorted")


_estimates: dict[tuple[str, bytes], tuple[int, float]] = {}
_KEPT = 1_000


async def _estimate(
    connection: Connection, space: Facts, filters: Filters, values: dict[str, Any]
) -> float:
    """About how many chunks match: the planner's word, kept while the namespace stays as large."""
    key = _filter_key(space, filters)
    chunks, known = _estimates.get(key, (0, 0.0))
    if abs(space.chunks - chunks) <= 0.1 * chunks:
        return known
    cursor = await connection.execute(
        f"""
        EXPLAIN (FORMAT JSON)
        SELECT
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND {may_match(filters)}
        """,
        values,
    )
    [plan] = await cursor.fetchone() or ([],)
    rows = float(plan[0]["Plan"]["Plan Rows"])
    if len(_estimates) >= _KEPT:
        _estimates.clear()
    _estimates[key] = (space.chunks, rows)
    return rows


_SCORE = "indexd.score(cosine, ingested_at, coalesce(half_life_seconds, %(half_life)s), %(at)s)"
_ROW = """doc_id, ordinal, chunk_id, ingested_at, half_life_seconds,
               -(embedding <#> %(vector)s) AS cosine"""


_KEY = "doc_id, ordinal, chunk_id, score"


def _scored(rows: str) -> str:
    return f"(SELECT doc_id, ordinal, chunk_id, {_SCORE} AS score FROM {rows}) AS scored"


def similar(dimension: int, filters: Filters, more: str = "") -> str:
    """The chunks nearest to the vector by the HNSW index, and their cosines in halfvec."""
    # The index is found by its expression and predicate, in which the dimension is a literal.
    distance = f"(embedding::halfvec({dimension})) <#> %(vector)s::vector::halfvec({dimension})"
    return f"""
        SELECT {_ROW},
               {more or f"-({distance}) AS half_cosine"}
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND vector_dims(embedding) = {dimension}
           AND {matches(filters)}
         ORDER BY {distance}
         LIMIT %(wanted)s
    """


def probe_statement(dimension: int, filters: Filters, *, per_document: bool) -> str:
    """Both arms in one statement; with newest = 0 the similar one alone.

    A filter is an output of the newest arm, not a condition, so that it reads no more than its
    limit. The second column bounds the cosines of chunks not given. The row given last does, and
    not the lowest: in relaxed order the rows of an earlier batch may lie lower, and rows not yet
    given above those. A row before it does so more surely, for of the farthest of its candidates
    an index misses most.
    """
    return f"""
        WITH near AS MATERIALIZED (
            SELECT *, row_number() OVER () AS place
              FROM ({similar(dimension, filters)}) AS nearby
        ),
        newest AS MATERIALIZED (
            SELECT {_ROW},
                   {content(filters)} AS hit
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND {in_time(filters)}
             ORDER BY ingested_at DESC
             LIMIT %(newest)s
        ),
        classes AS (
            SELECT half_life_class FROM (VALUES (0)) AS once
             CROSS JOIN LATERAL ({_CLASSES}) AS present
             WHERE %(newest)s > 0
        ),
        said AS (
            SELECT (SELECT count(*) FROM near),
                   greatest(
                       (SELECT half_cosine FROM near ORDER BY place DESC LIMIT 1),
                       (
                        SELECT percentile_disc(%(trusted)s)
                               WITHIN GROUP (ORDER BY half_cosine DESC)
                          FROM near
                       )
                   ),
                   (
                    SELECT percentile_disc(%(trusted)s / 2) WITHIN GROUP (ORDER BY half_cosine DESC)
                      FROM near
                   ),
                   (SELECT count(*) FROM newest),
                   (SELECT min(ingested_at) FROM newest),
                   ARRAY(SELECT half_life_class FROM classes)
        ),
        found AS (
            (
                {top(_scored("near"), _KEY, per_document=per_document)}
            )
            UNION ALL
            (
                {top(_scored("newest WHERE hit"), _KEY, per_document=per_document)}
            )
        )
        SELECT said.*, found.*
          FROM said
          LEFT JOIN found ON true
    """


async def _probe(
    connection: Connection,
    best: Best,
    dimension: int,
    filters: Filters,
    values: dict[str, Any],
    wanted: int,
    newest: int,
) -> Probe:
    cursor = await connection.execute(
        probe_statement(dimension, filters, per_document=best.per_document),
        values | {"wanted": wanted, "newest": newest},
    )
    rows = await cursor.fetchall()
    probe = Probe(*rows[0][:6])
    best.take([row[6:] for row in rows if row[6] is not None])
    best.scored += probe.similar + probe.newest
    return probe


# A namespace has few classes and many chunks: each step looks the next one up in the index.
_CLASSES = """
    WITH RECURSIVE present (half_life_class) AS (
        (
            SELECT half_life_class
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
             ORDER BY half_life_class
             LIMIT 1
        )
        UNION ALL
        SELECT (
                SELECT chunks.half_life_class
                  FROM indexd.chunks
                 WHERE chunks.namespace = %(namespace)s
                   AND chunks.half_life_class > present.half_life_class
                 ORDER BY chunks.half_life_class
                 LIMIT 1
               )
          FROM present
         WHERE present.half_life_class IS NOT NULL
    )
    SELECT half_life_class FROM present WHERE half_life_class IS NOT NULL
"""

# A score is at most its cosine, so what lies below kth needs no decay computed: 0.6 microseconds.
_SLICES = f"""
    unnest(
        %(classes)s::smallint[], %(since)s::timestamptz[], %(until)s::timestamptz[]
    ) AS slice (class, since, until)
    CROSS JOIN LATERAL (
        SELECT {_ROW}
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND half_life_class = slice.class
           AND ingested_at BETWEEN slice.since AND slice.until
           AND (embedding <#> %(vector)s) <= -%(kth)s::float8
           AND {{matches}}
        OFFSET 0
    ) AS swept
"""


def sweep_statement(filters: Filters, *, per_document: bool) -> str:
    """The k best of some slices, each of one half-life class, that may reach kth."""
    swept = _scored(_SLICES.format(matches=matches(filters)))
    return top(swept, _KEY, per_document=per_document)


async def _sweep(
    connection: Connection,
    best: Best,
    filters: Filters,
    values: dict[str, Any],
    slices: Sequence[Range],
) -> None:
    cursor = await connection.execute(
        sweep_statement(filters, per_document=best.per_document),
        values
        | {
            "kth": best.kth,
            "classes": [one.half_life_class for one in slices],
            "since": [_moment(one.since) for one in slices],
            "until": [_moment(one.until + 1e-5) for one in slices],
        },
    )
    best.take(await cursor.fetchall())


def _moment(seconds: float) -> datetime:
    """Rounded down to a microsecond, and no earlier than any chunk can be."""
    if seconds <= _FIRST.timestamp():
        return _FIRST
    return _EPOCH + timedelta(microseconds=math.floor(seconds * 1e6))


_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def _exact(
    connection: Connection, best: Best, filters: Filters, values: dict[str, Any], matching: float
) -> Best:
    """Score everything that matches; what is known already spares the decay of most rows."""
    floor = "AND (embedding <#> %(vector)s) <= -%(kth)s::float8" if best.kth > 0 else ""
    cursor = await connection.execute(
        top(
            _scored(f"""(
                SELECT {_ROW}
                  FROM indexd.chunks
                 WHERE namespace = %(namespace)s
                   AND {matches(filters)}
                   {floor}
                OFFSET 0
            ) AS matching"""),
            _KEY,
            per_document=best.per_document,
        ),
        values | {"kth": best.kth},
    )
    best.take(await cursor.fetchall())
    best.scored += int(matching)
    return best
