"""Every statement of a search, whole: what is sent to PostgreSQL is built here.

tests/sql/ shows each of them as it is sent. A statement begins with a comment that names it, so
that pg_stat_activity and pg_stat_statements tell which one runs. Values are bound by name.
"""

from collections.abc import Mapping
from typing import Any

from indexd.store.filters import (
    Filters,
    may_match,
    of_chunks,
    of_chunks_in_time,
    of_chunks_one_by_one,
    parameters,
)
from indexd.store.namespaces import FACTS, Facts
from indexd.store.search import hits
from indexd.store.search.query import Query
from indexd.store.visible import live

_KEY = "doc_id, ordinal, chunk_id"
_CANDIDATE = f"{_KEY}, ingested_at, half_life_seconds"
_COSINE = "-(embedding <#> %(vector)s)"
_SCORE = """indexd.score(
                               cosine, ingested_at,
                               coalesce(half_life_seconds, %(half_life)s), %(at)s
                           )"""


def values_of(query: Query, facts: Facts, **more: Any) -> Mapping[str, Any]:
    """The values that the statements of a search name, but for those of one step: `more`."""
    return {
        "namespace": facts.namespace,
        "vector": query.vector,
        "half_life": facts.half_life_seconds,
        "k": query.k,
        "page": query.page,
        "offset": query.offset,
        "min_similarity": query.min_similarity,
        "at": query.at,
        **parameters(query.filters),
        **more,
    }


def index_settings(ef: int, max_scan_tuples: int | None) -> list[str]:
    """What is set for a search of the HNSW index, in its transaction.

    With `max_scan_tuples` the scan goes on over that many rows of the index, until it has what is
    asked for: otherwise a selective filter finds few candidates, and no search sees more than ef.
    Relaxed order loses nothing: strict order drops the rows that turn up late.
    """
    settings = [f"SET LOCAL hnsw.ef_search = {ef}"]
    if max_scan_tuples is not None:
        settings += [
            "SET LOCAL hnsw.iterative_scan = relaxed_order",
            f"SET LOCAL hnsw.max_scan_tuples = {max_scan_tuples}",
            "SET LOCAL hnsw.scan_mem_multiplier = 8",
        ]
    return settings


_ALL = "LIMIT %(k)s"
_PAGE = "LIMIT %(page)s OFFSET %(offset)s"


def _top(scored: str, columns: str, *, per_document: bool, limit: str = _ALL) -> str:
    """The k best rows of a relation with doc_id, chunk_id and score, in the order of an answer."""
    if per_document:
        scored = f"""(
            SELECT DISTINCT ON (doc_id) *
              FROM {scored}
             ORDER BY doc_id, score DESC, chunk_id
        ) AS documents"""
    return f"""SELECT {columns}
              FROM {scored}
             ORDER BY score DESC, doc_id, chunk_id
             {limit}"""


def _scored(rows: str) -> str:
    return f"""(
                    SELECT {_KEY},
                           {_SCORE} AS score
                      FROM {rows}
                   ) AS scored"""


def answer(
    candidates: str,
    *,
    per_document: bool = False,
    similar: bool = False,
) -> str:
    """A page of the k best hits of `candidates`: a SELECT of keys, times, half-lives, similarity.

    `similar` leaves out candidates below min_similarity.

    Only keys and numbers are sorted; text and meta are fetched for the k that remain. OFFSET 0
    keeps the planner from computing a similarity once for each time the score mentions it.
    """
    enough = "\n             WHERE similarity >= %(min_similarity)s::float8" if similar else ""
    return f"""
        WITH candidates AS (
            {candidates}
            OFFSET 0
        ),
        fading AS (
            SELECT {_KEY}, ingested_at, similarity,
                   coalesce(half_life_seconds, %(half_life)s::float8) AS half_life
              FROM candidates{enough}
        ),
        scored AS (
            SELECT *,
                   indexd.score(similarity, ingested_at, half_life, %(at)s) AS score
              FROM fading
        ),
        best AS (
            {_top("scored", "*", per_document=per_document, limit=_PAGE)}
        )
        SELECT {hits.columns()}
          FROM best
          JOIN indexd.chunks AS chunk
            ON chunk.namespace = %(namespace)s
           AND chunk.doc_id = best.doc_id
           AND chunk.ordinal = best.ordinal
          JOIN indexd.documents AS document
            ON document.namespace = %(namespace)s
           AND document.doc_id = best.doc_id
         ORDER BY best.score DESC, best.doc_id, best.chunk_id
    """


def _matching(filters: Filters) -> str:
    """The candidates of a scan: every chunk that matches, and its cosine."""
    return f"""SELECT {_CANDIDATE},
                   {_COSINE} AS similarity
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND embedding IS NOT NULL
               AND {of_chunks(filters)}"""


def scan(filters: Filters, *, per_document: bool = False, similar: bool = False) -> str:
    """Score all that matches, and answer the k best; `similar` is that of `answer`."""
    found = answer(_matching(filters), per_document=per_document, similar=similar)
    return f"/* indexd:search.scan */{found}"


def chosen() -> str:
    """Answer the chunks of the given keys, which probe and sweep chose."""
    candidates = f"""SELECT chunks.doc_id, chunks.ordinal, chunk_id, ingested_at, half_life_seconds,
                   {_COSINE} AS similarity
              FROM unnest(%(chosen_doc_ids)s::text[], %(chosen_ordinals)s::int[])
                AS chosen (doc_id, ordinal)
              JOIN indexd.chunks
                ON chunks.namespace = %(namespace)s
               AND chunks.doc_id = chosen.doc_id COLLATE "C"
               AND chunks.ordinal = chosen.ordinal"""
    return f"/* indexd:search.chosen */{answer(candidates)}"


SHORTCUT = (*Facts.__struct_fields__, *hits.FIELDS, "cosines")
"""The columns of a statement that reads the namespace's facts beside its hits. Where nothing is
found one row comes, of the facts and NULLs. `cosines` stands in the first row, of all that were
looked at, highest first; it is NULL after a scan."""


def _beside_facts(found: str) -> str:
    """Hits beside the facts of the namespace, both of one snapshot."""
    return f"""
        SELECT facts.*, hit.*
          FROM (
            {FACTS}
               ) AS facts
          LEFT JOIN (
            {found}
               ) AS hit
            ON true
         ORDER BY hit.score DESC, hit.doc_id, hit.chunk_id
    """


def scan_shortcut(dimension: int, filters: Filters) -> str:
    """The scan in one statement."""
    # Vectors of another dimension can't be compared at all: then nothing is read.
    candidates = f"""{_matching(filters)}
               AND EXISTS (
                    SELECT 1
                      FROM indexd.namespaces
                     WHERE namespace = %(namespace)s
                       AND dimension = {dimension}
               )"""
    found = f"SELECT *, NULL::float8[] AS cosines FROM ({answer(candidates)}) AS hits"
    return f"/* indexd:search.scan_shortcut */{_beside_facts(found)}"


def nearest_shortcut(dimension: int) -> str:
    """The k nearest chunks by the index, where nothing fades: the score is the cosine."""
    # An answer with a chunk that fades proves nothing, so no decay is computed.
    found = f"""
        SELECT {hits.columns(chunk="best", decay="1::float8")},
               CASE WHEN place = 1 THEN all_cosines END AS cosines
          FROM (
                SELECT *,
                       cosine            AS score,
                       cosine            AS similarity,
                       half_life_seconds AS half_life,
                       row_number() OVER ranking    AS place,
                       array_agg(cosine) OVER whole AS all_cosines
                  FROM (
            {by_index(dimension, Filters(), "text, meta, tags")}
                       ) AS near
                WINDOW ranking AS (ORDER BY cosine DESC, doc_id, chunk_id),
                       whole   AS (ranking RANGE BETWEEN UNBOUNDED PRECEDING
                                                     AND UNBOUNDED FOLLOWING)
                 ORDER BY cosine DESC, doc_id, chunk_id
                 LIMIT %(k)s
               ) AS best
          JOIN indexd.documents AS document
            ON document.namespace = %(namespace)s
           AND document.doc_id = best.doc_id
    """
    return f"/* indexd:search.nearest_shortcut */{_beside_facts(found)}"


def by_index(dimension: int, filters: Filters, more: str) -> str:
    """The chunks nearest to the vector by the HNSW index, and their cosines in float32."""
    # The index is found by its expression and predicate, in which the dimension is a literal.
    return f"""SELECT {_CANDIDATE},
                   {_COSINE} AS cosine,
                   {more}
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND vector_dims(embedding) = {dimension}
               AND {of_chunks_one_by_one(filters)}
             ORDER BY {_half_distance(dimension)}
             LIMIT %(similar_rows)s"""


def _half_distance(dimension: int) -> str:
    return f"(embedding::halfvec({dimension})) <#> %(vector)s::vector::halfvec({dimension})"


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
            SELECT half_life_class FROM present WHERE half_life_class IS NOT NULL"""


def probe(dimension: int, filters: Filters, *, per_document: bool, similar: bool = False) -> str:
    """The most similar and the newest chunks: what is to be known of them, and the k best of each.

    `similar` leaves out of the best what lies below min_similarity.

    With newest_rows = 0 the similar ones alone. A filter is a column of the newest candidates, not
    a condition, so that no more rows are read than their limit. `half_cosines` are those of the
    similar candidates in halfvec, in the order in which the index gave them.
    """
    enough = "cosine >= %(min_similarity)s::float8"
    near = f"near WHERE {enough}" if similar else "near"
    newest = f"newest WHERE matches AND {enough}" if similar else "newest WHERE matches"
    return f"""/* indexd:search.probe */
        WITH near AS MATERIALIZED (
            SELECT *, row_number() OVER () AS place
              FROM (
            {by_index(dimension, filters, f"-({_half_distance(dimension)}) AS half_cosine")}
              ) AS nearby
        ),
        newest AS MATERIALIZED (
            SELECT {_CANDIDATE},
                   {_COSINE} AS cosine,
                   embedding IS NOT NULL
                   AND {of_chunks_one_by_one(filters, in_time=False)} AS matches
              FROM indexd.chunks
             WHERE namespace = %(namespace)s
               AND {of_chunks_in_time(filters)}
             ORDER BY ingested_at DESC
             LIMIT %(newest_rows)s
        ),
        classes AS (
            SELECT half_life_class FROM (VALUES (0)) AS once
             CROSS JOIN LATERAL ({_CLASSES}
             ) AS present
             WHERE %(newest_rows)s > 0
        ),
        best AS (
            (
            {_top(_scored(near), f"{_KEY}, score", per_document=per_document)}
            )
            UNION ALL
            (
            {_top(_scored(newest), f"{_KEY}, score", per_document=per_document)}
            )
        )
        SELECT ARRAY(SELECT half_cosine FROM near ORDER BY place) AS half_cosines,
               (SELECT count(*) FROM newest) AS newest,
               (SELECT min(ingested_at) FROM newest) AS newest_since,
               ARRAY(SELECT half_life_class FROM classes) AS classes,
               ARRAY(SELECT doc_id FROM best) AS doc_ids,
               ARRAY(SELECT ordinal FROM best) AS ordinals,
               ARRAY(SELECT chunk_id FROM best) AS chunk_ids,
               ARRAY(SELECT score FROM best) AS scores
    """


# A score is at most its cosine, so what lies below kth needs no decay computed: 0.6 microseconds.
# What lies below min_similarity is left out likewise: the floor is the higher of the two. A chunk
# without a vector is left out, too: its cosine is NULL.
_ABOVE_FLOOR = "AND (embedding <#> %(vector)s) <= -%(floor)s::float8"


def sweep(filters: Filters, *, per_document: bool) -> str:
    """The k best keys of some slices, each of one half-life class, not below the floor."""
    slices = f"""unnest(
                %(classes)s::smallint[], %(since)s::timestamptz[], %(until)s::timestamptz[]
              ) AS slice (class, since, until)
              CROSS JOIN LATERAL (
                SELECT {_CANDIDATE},
                       {_COSINE} AS cosine
                  FROM indexd.chunks
                 WHERE namespace = %(namespace)s
                   AND half_life_class = slice.class
                   AND ingested_at BETWEEN slice.since AND slice.until
                   {_ABOVE_FLOOR}
                   AND {of_chunks_one_by_one(filters)}
                OFFSET 0
              ) AS swept"""
    keys = _top(_scored(slices), f"{_KEY}, score", per_document=per_document)
    return f"/* indexd:search.sweep */ {keys}"


def rescan(filters: Filters, *, floor: bool, per_document: bool) -> str:
    """The k best keys of all that match; with a floor, of those that are not below it."""
    matching = f"""(
                SELECT {_CANDIDATE},
                       {_COSINE} AS cosine
                  FROM indexd.chunks
                 WHERE namespace = %(namespace)s
                   AND {of_chunks(filters)}
                   {_ABOVE_FLOOR if floor else "AND embedding IS NOT NULL"}
                OFFSET 0
              ) AS matching"""
    keys = _top(_scored(matching), f"{_KEY}, score", per_document=per_document)
    return f"/* indexd:search.rescan */ {keys}"


def estimate(filters: Filters) -> str:
    """How many chunks pass the filters, as the planner estimates it."""
    return f"""EXPLAIN (FORMAT JSON)
        SELECT 1 /* indexd:search.estimate */
          FROM indexd.chunk_fields AS fields
         WHERE fields.namespace = %(namespace)s
           AND {may_match(filters)}
    """


def sample(filters: Filters) -> str:
    """The share of chunks that pass the filters, of a few from each of some moments on."""
    return f"""
    /* indexd:search.sample */
        SELECT avg(matches::int)::float8
          FROM unnest(%(since)s::timestamptz[]) AS moment (since)
         CROSS JOIN LATERAL (
                SELECT {of_chunks_one_by_one(filters)} AS matches
                  FROM indexd.chunks
                 WHERE namespace = %(namespace)s
                   AND ingested_at >= moment.since
                 ORDER BY ingested_at
                 LIMIT %(each)s
               ) AS sampled
    """


def centre() -> str:
    """The number of a document's chunks, the mean of its vectors, and the first of them."""
    return f"""/* indexd:search.centre */
        SELECT count(*) AS chunks,
               avg(embedding) AS mean,
               (
                SELECT embedding
                  FROM indexd.chunks
                 WHERE namespace = %(namespace)s
                   AND doc_id = %(doc_id)s
                   AND embedding IS NOT NULL
                 ORDER BY ordinal
                 LIMIT 1
               ) AS first
          FROM indexd.chunks
         WHERE namespace = %(namespace)s
           AND doc_id = %(doc_id)s
           AND EXISTS (
                SELECT 1
                  FROM indexd.documents AS document
                 WHERE document.namespace = %(namespace)s
                   AND document.doc_id = %(doc_id)s
                   AND {live("document")}
               )
    """
